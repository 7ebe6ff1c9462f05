"""Registers all plugins with TensorRT, once a process.

Never with TensorRT-RTX, whose parser aborts the process on a registered plugin: it has a
package and a registry of its own, and its target builds in a process of its own, which looks
into that registry before it parses.
"""

from __future__ import annotations

import importlib

import numpy as np
import tensorrt as trt

from ..errors import PluginError
from ..installation import install
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
    check_bindings()
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
        _registered.add(capability)  # first: what fails halfway cannot be registered again
        for module in modules:
            module.register(capability)
    return plugin_versions()


def check_bindings() -> None:
    """Refuse bindings that cannot make a plugin of a registered one.

    Raises:
        PluginError: They are too old, TensorRT-RTX's, or do not get on with this numpy.
    """
    tensorrt, numpy = str(trt.__version__), np.__version__
    if not hasattr(trt, "QuickPluginCreationRequest"):
        raise PluginError(
            f"TensorRT {tensorrt} takes no plugins that are compiled ahead of time",
            "TensorRT 10.8 or newer does; elsewhere the bodies of the ops are used",
        )
    if _numbers(tensorrt) < (11, 0) and _numbers(numpy) >= (2, 4):
        # its creator calls int() on an array of one element
        raise PluginError(
            f"the plugins of TensorRT {tensorrt} do not get on with numpy {numpy}",
            f"{install('numpy<2.4')}, or use TensorRT 11",
        )


def _numbers(version: str) -> tuple[int, int]:
    major, minor, *_ = version.split(".")
    return int(major), int(minor)
