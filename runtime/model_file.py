"""ONNX files that srdeploy made, read with suspicion.

The :class:`~srdeploy.spec.ModelSpec` travels in the file's metadata, so that nothing but
the file passes between the exporter and the runtime.
"""

from __future__ import annotations

from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from ..errors import ModelFileError
from ..spec import ModelSpec, dump, load

SPEC_KEY = "srdeploy.spec"
OPSET = 20
# protobuf refuses larger messages; no network here comes near it
LARGEST_BYTES = 2**31 - 1


def attach_spec(model: onnx.ModelProto, spec: ModelSpec) -> None:
    """Store ``spec`` in the model's metadata, in place of any before."""
    kept = [p for p in model.metadata_props if p.key != SPEC_KEY]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    entry = model.metadata_props.add()
    entry.key, entry.value = SPEC_KEY, dump(spec)


def spec_of(model: onnx.ModelProto, name: str) -> ModelSpec:
    """Read the spec of a model that ``export`` wrote.

    Raises:
        ModelFileError: There is none, or it is damaged.
    """
    for entry in model.metadata_props:
        if entry.key == SPEC_KEY:
            try:
                return load(ModelSpec, entry.value)
            except ValueError as exc:
                raise ModelFileError(
                    f"{name}: its srdeploy metadata is damaged: {exc}", "export it again"
                ) from exc
    raise ModelFileError(
        f"{name} was not made by srdeploy: it has no '{SPEC_KEY}' in its metadata",
        "srdeploy export --weights CHECKPOINT makes one from a checkpoint",
    )


def parse_graph(content: bytes) -> onnx.ModelProto:
    """The graph of an engine from its bytes.

    Raises:
        ModelFileError: It is no ONNX, or is damaged.
    """
    try:
        return onnx.load_model_from_string(content)
    except (DecodeError, ValueError) as exc:
        raise ModelFileError(f"the graph is no ONNX, or is damaged: {exc}") from exc


def read_model(path: Path) -> tuple[onnx.ModelProto, ModelSpec]:
    """Read an exported ONNX file and its spec.

    Raises:
        ModelFileError: The file is missing, no ONNX, damaged, or not srdeploy's.
    """
    try:
        size = path.stat().st_size
        if not path.is_file() or size > LARGEST_BYTES:
            raise ModelFileError(f"{path} is not a file of at most 2 GiB")
        model = onnx.load_model_from_string(path.read_bytes())
    except OSError as exc:
        raise ModelFileError(
            f"{path} cannot be read: {exc.strerror}", "srdeploy export makes such a file"
        ) from exc
    except (DecodeError, ValueError) as exc:
        raise ModelFileError(f"{path} is not an ONNX file, or is damaged: {exc}") from exc
    spec = spec_of(model, str(path))
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as exc:
        raise ModelFileError(f"{path} is damaged: {exc}", "export it again") from exc
    return model, spec
