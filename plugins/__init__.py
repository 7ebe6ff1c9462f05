"""Custom ops: one folder each, with its torch op, ONNX function, kernel and TensorRT plugin.

An op is one ONNX node of the domain :data:`DOMAIN` that carries a function body of standard
operators. Where a plugin is registered under its name, that one runs; elsewhere the body does.
"""

from __future__ import annotations

import importlib
import pkgutil

DOMAIN = "srdeploy"
"""Domain of the ONNX nodes, and name of the torch library."""

NAMESPACE = "srdeploy"
"""Namespace of the TensorRT plugins; the ONNX attribute ``plugin_namespace``."""

VERSION = "1"
"""Of inputs, outputs and attributes of all ops: the ONNX attribute ``plugin_version``."""

OPSET_VERSION = int(VERSION)
"""Version of the ONNX domain."""


def op_names() -> tuple[str, ...]:
    """The ops: one folder each."""
    return tuple(sorted(folder.name for folder in pkgutil.iter_modules(__path__) if folder.ispkg))


def plugin_versions() -> dict[str, str]:
    """Id of every TensorRT plugin, such as ``srdeploy::oca``, to its version."""
    folders = (importlib.import_module(f"{__name__}.{name}") for name in op_names())
    return {f"{NAMESPACE}::{name}": VERSION for folder in folders for name in folder.PLUGINS}
