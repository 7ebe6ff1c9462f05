"""Registers all plugins with TensorRT, once a process.

Never with TensorRT-RTX, whose parser aborts the process on a registered plugin: it has a
package and a registry of its own, and its target builds in a process of its own, which looks
into that registry before it parses.
"""

from __future__ import annotations

import importlib

import tensorrt as trt

from ..errors import PluginError
from . import VERSION, op_names, plugin_versions

TENSORRT_PLUGIN_VERSION = "1"
"""What tensorrt.plugin writes on every plugin; it cannot be chosen."""

_registered: set[str] = set()


def register_plugins(capability: str) -> dict[str, str]:
    """Register every plugin, for engines of one compute capability.

    Args:
        capability: Of the GPU that this process builds for, ``8.6``.

    Returns:
        Plugin to its version, as they belong into a manifest.

    Raises:
        PluginError: They are registered for another GPU already, or this is TensorRT-RTX.
    """
    if "rtx" in trt.__name__ or not hasattr(trt, "QuickPluginCreationRequest"):
        raise PluginError(
            f"{trt.__name__} {trt.__version__} takes no plugins that are compiled ahead of time",
            "TensorRT 10.8 or newer does; elsewhere the ops' bodies are used",
        )
    if VERSION != TENSORRT_PLUGIN_VERSION:
        raise PluginError(
            f"the ops are of version {VERSION}, tensorrt.plugin registers version"
            f" {TENSORRT_PLUGIN_VERSION}",
            "give the new version a namespace of its own",
        )
    others = _registered - {capability}
    if others:
        raise PluginError(
            f"the plugins of this process are for compute capability {others.pop()},"
            f" not {capability}",
            "build for one GPU in each process",
        )
    if capability not in _registered:
        modules = (
            importlib.import_module(f"{__package__}.{name}.tensorrt_plugin") for name in op_names()
        )
        for module in modules:
            module.register(capability)
        _registered.add(capability)
    return plugin_versions()
