"""Torch network to ONNX with dynamic N, H and W, named after the network's own modules."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase

import onnx
import onnx_ir as ir
import torch
from onnx_ir.passes import common
from onnxscript.optimizer import fold_constants_ir
from torch import nn

from ..errors import ExportError
from ..plugins.onnx_functions import attach_functions
from ..plugins.onnx_translation import translation_table
from ..runtime.model_file import OPSET, attach_spec
from ..spec import ModelSpec
from .precision import kept_in_fp32, pin_to_fp32

NEWEST_OPSET = 23
LARGEST_FOLDED = 1 << 20
"""Elements of the largest constant that is computed while exporting."""


def trace(
    network: nn.Module,
    spec: ModelSpec,
    opset: int = OPSET,
    size: tuple[int, int] | None = None,
) -> onnx.ModelProto:
    """Trace ``network`` (N×3×H×W float32 to N×3×(sH)×(sW)) to ONNX.

    Args:
        network: In evaluation mode.
        spec: Goes into the metadata.
        opset: Version of ONNX's operator set, 18 to 23.
        size: (H, W) of a static export of one frame; None for dynamic N, H and W.

    Raises:
        ExportError: An option is out of range or PyTorch's exporter fails.
    """
    if not 18 <= opset <= NEWEST_OPSET:
        raise ExportError(
            f"opset {opset} is not supported", f"18 to {NEWEST_OPSET} are; {OPSET} is the default"
        )
    if size and min(size) < spec.minimum_size:
        raise ExportError(
            f"{spec.variant} needs at least {spec.minimum_size} pixels in each direction,"
            f" --static asks for {size[0]}×{size[1]}"
        )
    # Sizes that are prime to each other and to any window, so that none is taken for another.
    height, width = size or (spec.minimum_size + 22, spec.minimum_size + 40)
    frames = torch.rand(1 if size else 2, 3, height, width)
    least = spec.minimum_size
    dims = {0: torch.export.Dim("N")} | {
        axis: torch.export.Dim(name, min=least) for axis, name in ((2, "H"), (3, "W"))
    }
    try:
        with _quiet():
            program = torch.onnx.export(
                network.eval(),
                (frames,),
                dynamo=True,
                opset_version=opset,
                input_names=["lr"],
                output_names=["sr"],
                dynamic_shapes=None if size else (dims,),
                custom_translation_table=translation_table(),
                # its optimiser merges equal tensors, and a network could not be rebuilt
                optimize=False,
                verbose=False,
            )
    except Exception as exc:  # the exporter raises many kinds
        raise ExportError(f"PyTorch could not export {spec.variant}: {exc}") from exc
    if program is None:
        raise ExportError(f"PyTorch could not export {spec.variant}")
    _fold(program.model)
    model = program.model_proto
    _tidy(model)
    _pin(model, spec)
    attach_functions(model)
    attach_spec(model, spec)
    onnx.checker.check_model(model, full_check=True)
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence PyTorch's exporter, which speaks of its own internals and of torchvision."""
    loggers = [logging.getLogger(n) for n in ("torch.onnx", "torch.export", "onnxscript")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _fold(model: ir.Model) -> None:
    """Compute what is constant but for the network's own tensors, which keep their names.

    A static size makes most of the shape arithmetic constant; with dynamic ones what is left
    is what depends on them.
    """

    def of_no_tensor(node: ir.Node) -> bool | None:
        kept = any(value is not None and value.is_initializer() for value in node.inputs)
        return False if kept else None  # None leaves the decision to the pass

    fold_constants_ir(
        model,
        onnx_shape_inference=True,
        input_size_limit=LARGEST_FOLDED,
        output_size_limit=LARGEST_FOLDED,
        should_fold=of_no_tensor,
    )
    for step in (
        common.IdentityEliminationPass(),
        common.CommonSubexpressionEliminationPass(),
        common.RemoveUnusedNodesPass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
    ):
        step(model)


def _pin(model: onnx.ModelProto, spec: ModelSpec) -> None:
    """Mark the nodes that the spec wants in float32.

    Raises:
        ExportError: A pattern fits no node: the network has changed and its spec has not.
    """
    for pattern in spec.fp32_nodes:
        fitting = [node for node in model.graph.node if fnmatchcase(node.name, pattern)]
        if not fitting:
            raise ExportError(f"no node of {spec.variant} is called '{pattern}'")
        for node in fitting:
            if not kept_in_fp32(node):
                pin_to_fp32(node)


def _tidy(model: onnx.ModelProto) -> None:
    """Name nodes after modules, and drop notes that hold paths of the exporting machine."""
    graph = model.graph
    initializers = {tensor.name for tensor in graph.initializer}
    taken: set[str] = set()
    for node in graph.node:
        name = _module_name(node, initializers)
        suffix = 1
        while name in taken:
            suffix += 1
            name = f"{re.sub(r'#[0-9]+$', '', name)}#{suffix}"
        taken.add(name)
        node.name = name
        node.doc_string = ""
    del graph.value_info[:]  # stale as soon as a pass has run; whoever needs it infers it
    for holder in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        del holder.metadata_props[:]
    model.doc_string = graph.doc_string = ""
    model.producer_name = "srdeploy"
    model.producer_version = ""


def _module_name(node: onnx.NodeProto, initializers: set[str]) -> str:
    """``body.0.proj_1`` for a layer with weights, ``body.0/Gelu`` for an op inside a module."""
    for name in node.input[1:]:
        if name in initializers and name.endswith(".weight"):
            return str(name.removesuffix(".weight"))
    scopes = next((p.value for p in node.metadata_props if p.key == "namespace"), "")
    # "/body.0: package.Class/gelu: aten.gelu.default": the last scope is the op itself
    modules = [part.split(":")[0].strip() for part in scopes.split("/")[:-1]]
    innermost = next((m for m in reversed(modules) if m), "")
    return f"{innermost}/{node.op_type}" if innermost else node.op_type
