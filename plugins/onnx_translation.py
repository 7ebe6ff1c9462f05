"""Tells PyTorch's exporter which ONNX node each torch op becomes."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import Any

import torch
from onnxscript import values

from . import DOMAIN, NAMESPACE, OPSET_VERSION, VERSION, op_names
from .onnx_functions import register_schemas

_ATTRIBUTE_TYPES: dict[str, type] = {"int": int, "float": float}


def translation_table() -> dict[Callable[..., Any], Callable[..., Any]]:
    """For ``torch.onnx.export(custom_translation_table=…)``.

    The bodies of the nodes are attached after the export, by
    :func:`~srdeploy.plugins.onnx_functions.attach_functions`.
    """
    register_schemas()
    table = {}
    for name in op_names():
        importlib.import_module(f"{__package__}.{name}.op")
        op = getattr(torch.ops.srdeploy, name).default
        table[op] = _translation(name, op)
    return table


def _translation(name: str, op: Any) -> Callable[..., Any]:
    """Make a function that the exporter calls with the op's arguments and that adds the node."""
    node = getattr(values.Opset(DOMAIN, OPSET_VERSION), name)
    types = {
        argument.name: _ATTRIBUTE_TYPES.get(str(argument.type), Any)
        for argument in op._schema.arguments
    }

    def translate(*args: Any, **kwargs: Any) -> Any:
        given = dict(zip(types, args, strict=False)) | kwargs
        inputs = [given[n] for n, kind in types.items() if kind is Any]
        attributes = {n: given[n] for n, kind in types.items() if kind is not Any}
        return node(*inputs, **attributes, plugin_namespace=NAMESPACE, plugin_version=VERSION)

    # the exporter tells inputs from attributes by their annotations
    translate.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(n, inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=kind)
            for n, kind in types.items()
        ]
    )
    translate.__annotations__ = {n: kind for n, kind in types.items() if kind is not Any}
    return translate
