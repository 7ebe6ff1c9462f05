"""Graph rewrites: one file each, found by listing this folder.

A pass changes how a graph computes, never what. Its file ``channel_layernorm.py`` is the
pass ``channel-layernorm`` and defines ``PASS``; what it could not rewrite it reports with
the reason, so that a pass that did not fire explains itself.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

import onnx

from ...errors import ExportError


@dataclass
class PassReport:
    """What a pass did to a graph.

    Attributes:
        rewritten: Names of the nodes whose computation was rewritten.
        refused: Name of each node that looked fitting and was left, with the reason.
    """

    rewritten: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class GraphPass:
    """A rewrite: its id and the function."""

    name: str
    run: Callable[[onnx.ModelProto], PassReport]


def pass_names() -> tuple[str, ...]:
    """Ids of all passes, in the order in which they run."""
    return tuple(sorted(m.name.replace("_", "-") for m in pkgutil.iter_modules(__path__)))


def open_pass(name: str) -> GraphPass:
    """Open a pass by its id.

    Raises:
        ExportError: There is no such pass.
    """
    if name not in pass_names():
        raise ExportError(
            f"no graph pass is called '{name}'", f"known ones: {', '.join(pass_names())}"
        )
    opened = importlib.import_module(f"{__name__}.{name.replace('-', '_')}").PASS
    if not isinstance(opened, GraphPass) or opened.name != name:
        raise ExportError(f"the file of the graph pass '{name}' does not define it")
    return opened


def run_passes(model: onnx.ModelProto, without: Collection[str] = ()) -> dict[str, PassReport]:
    """Run every pass but those in ``without`` on ``model``, in place.

    Raises:
        ExportError: ``without`` names a pass that does not exist.
    """
    for name in without:
        open_pass(name)
    return {n: open_pass(n).run(model) for n in pass_names() if n not in without}
