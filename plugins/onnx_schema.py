"""Schemas of the ops as ONNX knows them, so that a checker finds a wrong node."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from onnx import AttributeProto, defs, helper
from onnx.shape_inference import InferenceContext

from . import DOMAIN, NAMESPACE, OPSET_VERSION, VERSION

FLOATS = ("tensor(float16)", "tensor(bfloat16)", "tensor(float)")

_Schema = defs.OpSchema
_KINDS = {int: _Schema.AttrType.INT, float: _Schema.AttrType.FLOAT}


def attribute(name: str, kind: type, doc: str) -> defs.OpSchema.Attribute:
    """A required attribute."""
    return _Schema.Attribute(name, _KINDS[kind], doc, required=True)


def node_schema(
    name: str,
    doc: str,
    inputs: Mapping[str, str],
    outputs: Mapping[str, str],
    attributes: Sequence[defs.OpSchema.Attribute],
    infer: Callable[[InferenceContext], None],
) -> defs.OpSchema:
    """Describe a node of the domain ``srdeploy``.

    Args:
        name: Of the op.
        doc: What it computes.
        inputs: Name to meaning; a meaning that begins with "Float32" fixes the type, all
            others have one type.
        outputs: Likewise.
        attributes: All but ``plugin_namespace`` and ``plugin_version``.
        infer: Sets the output's type and shape.
    """

    def parameters(named: Mapping[str, str]) -> list[defs.OpSchema.FormalParameter]:
        return [
            _Schema.FormalParameter(
                n, "tensor(float)" if meaning.startswith("Float32") else "T", meaning
            )
            for n, meaning in named.items()
        ]

    plugin = [
        _Schema.Attribute(
            f"plugin_{part}",
            helper.make_attribute(f"plugin_{part}", value, attr_type=AttributeProto.STRING),
            f"The {part} of the TensorRT plugin that may take the node's place.",
        )
        for part, value in (("namespace", NAMESPACE), ("version", VERSION))
    ]
    schema = _Schema(
        name,
        DOMAIN,
        OPSET_VERSION,
        doc,
        inputs=parameters(inputs),
        outputs=parameters(outputs),
        type_constraints=[("T", FLOATS, "What the network computes in.")],
        attributes=[*attributes, *plugin],
    )
    schema.set_type_and_shape_inference_function(infer)
    return schema
