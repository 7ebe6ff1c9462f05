"""The reference of an exported model: its network in PyTorch, or the ONNX where torch is absent.

The network is rebuilt from the ONNX file itself: the file holds every tensor under its own
name, and the digest in its metadata proves that they are the exported ones.
"""

from __future__ import annotations

import importlib.util

import onnx
from onnx import numpy_helper

from ..errors import ModelFileError
from ..runtime.session import Session
from ..spec import ModelSpec

# Above this many LR pixels PyTorch needs gigabytes; without global operations tiles are exact.
TILE = 384


def open_reference(model: onnx.ModelProto, spec: ModelSpec) -> Session:
    """Open the float32 reference of an exported ONNX model.

    Returns:
        A session whose ``target`` is ``torch``, or ``onnxruntime`` where torch is not here.

    Raises:
        ModelFileError: The file does not hold the tensors that its metadata names.
    """
    if importlib.util.find_spec("torch") is None:
        from ..runtime.targets.onnxruntime import ReferenceSession

        session = ReferenceSession(model, spec.scale)
        session.minimum_size = spec.minimum_size
        return session
    # Imported here: validate/ must load where torch is not installed.
    from ..models.weights.checkpoint import network_from_arrays
    from .torch_session import TorchSession

    arrays = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    network, digest = network_from_arrays(spec, arrays)
    if digest != spec.weights_sha256:
        raise ModelFileError(
            f"the weights in the file are not those that its metadata names ({spec.weights})",
            "an fp16 export has rounded weights: validate against the fp32 export instead",
        )
    tile = None if spec.global_operation else TILE
    return TorchSession(network, spec, tile=tile)
