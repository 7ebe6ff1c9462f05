"""Gives the nodes of the domain ``srdeploy`` in a model their bodies of standard operators."""

from __future__ import annotations

import importlib
from functools import cache

import onnx
import onnx.inliner
from onnx import FunctionProto, ModelProto, defs, helper, parser

from . import DOMAIN, NAMESPACE, OPSET_VERSION, VERSION, op_names


@cache
def _bodies() -> dict[str, str]:
    """Node to the text of its body, of all ops."""
    modules = (importlib.import_module(f"{__package__}.{name}.onnx_op") for name in op_names())
    return {node: body for module in modules for node, body in module.BODIES.items()}


@cache
def register_schemas() -> None:
    """Make the nodes known to ONNX's checker and shape inference, once a process."""
    for name in op_names():
        for schema in importlib.import_module(f"{__package__}.{name}.onnx_op").SCHEMAS:
            defs.register_schema(schema)


def function(name: str, opset: int) -> FunctionProto:
    """The body of a node in a version of ONNX's operator set, 18 or newer."""
    signature, _, body = _bodies()[name].strip().partition(">")
    # the parser's defaults make these two optional, as a function's attributes can be
    plugin = f'plugin_namespace: string = "{NAMESPACE}", plugin_version: string = "{VERSION}"'
    opsets = f'"" : {opset}, "{DOMAIN}" : {OPSET_VERSION}'
    return parser.parse_function(
        f'<domain: "{DOMAIN}", opset_import: [{opsets}]> {signature}, {plugin}>{body}'
    )


def attach_functions(model: ModelProto) -> None:
    """Give every node of the domain its body, in the model's own operator set.

    What bodies a model had for the domain before is replaced, so that a model that was
    converted to another operator set has bodies of that one.
    """
    register_schemas()
    versions = {o.domain: o.version for o in model.opset_import}
    kept = [f for f in model.functions if f.domain != DOMAIN]
    del model.functions[:]
    model.functions.extend(kept)
    wanted = {node.op_type for node in model.graph.node if node.domain == DOMAIN}
    attached: set[str] = set()
    while missing := sorted(wanted - attached):
        bodies = [function(name, versions[""]) for name in missing]
        model.functions.extend(bodies)
        attached |= set(missing)
        wanted |= {n.op_type for body in bodies for n in body.node if n.domain == DOMAIN}
    if attached and DOMAIN not in versions:
        model.opset_import.append(helper.make_opsetid(DOMAIN, OPSET_VERSION))


def inline_functions(model: ModelProto) -> ModelProto:
    """The model of standard operators alone; itself where it has no functions."""
    if not model.functions:
        return model
    named = ModelProto()
    named.CopyFrom(model)
    for body in named.functions:
        for node in body.node:
            # The inliner makes these unique. ONNX Runtime's own does not, and refuses a file
            # with two calls of a function whose nodes have names: so they have none there.
            node.name = f"{body.name}/{node.op_type}"
    plain = onnx.inliner.inline_local_functions(named)
    kept = [o for o in plain.opset_import if o.domain != DOMAIN]
    del plain.opset_import[:]
    plain.opset_import.extend(kept)
    return plain
