"""Which plugins an engine calls: those of its custom ops, where they can be had."""

from __future__ import annotations

import importlib
import importlib.util

from ...errors import PluginError
from ...plugins import DOMAIN, NAMESPACE, plugin_versions
from ...spec import BuildConfig, Gpu
from ..model_file import parse_graph
from .staleness import numbers

FIRST_DRIVER = "12.8"
"""CUDA of the PTX that Triton writes, ISA 8.7; an older driver does not load it."""


def plugins_of(
    graph: bytes, config: BuildConfig, gpu: Gpu
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Plugins that an engine of a graph calls, with versions, and notes where it calls none.

    An op whose plugin cannot be had is built from its body of standard operators. For TensorRT
    only, and where its bindings can be imported.
    """
    model = parse_graph(graph)
    nodes = (*model.graph.node, *(node for f in model.functions for node in f.node))
    ops = {node.op_type for node in nodes if node.domain == DOMAIN}
    versions = plugin_versions()
    names = sorted(name for op in ops if (name := f"{NAMESPACE}::{op}") in versions)
    if not names:
        return (), ()
    if reason := _why_none(config, gpu):
        return (), (
            f"no plugin for {', '.join(names)}: {reason}; bodies of standard operators are built"
            " in instead",
        )
    return tuple(f"{name} {versions[name]}" for name in names), ()


def _why_none(config: BuildConfig, gpu: Gpu) -> str:
    """Why no plugin can be had in this environment, or nothing."""
    if config.tensorrt.version_compatible:
        return "version-compatible engines carry a runtime that was never seen to take plugins"
    if numbers(gpu.driver) < numbers(FIRST_DRIVER):
        return f"their kernels want a driver that speaks CUDA {FIRST_DRIVER}, not {gpu.driver}"
    if importlib.util.find_spec("triton") is None:
        return "Triton, which compiles their kernels, is not installed"
    try:
        importlib.import_module("srdeploy.plugins.tensorrt_registry").check_bindings()
    except PluginError as exc:
        return exc.message
    return ""
