"""Parsing a graph, with a report on what the parser refuses: node, op, reason, and what helps."""

from __future__ import annotations

from typing import Any

from .library import Library
from .log import Log

# What helps against an operation that the parser refuses; the op's name is ONNX's.
_ADVICE = {
    "LayerNormalization": "export with --opset 18 or newer, or with the pass channel-layernorm",
    "GroupNormalization": "export with --opset 21",
    "Gelu": "export with --opset 20: older ones have no Gelu, and the exporter writes it out",
    "DequantizeLinear": "its scales must be positive constants; build with --fp16 instead of int8",
    "QuantizeLinear": "its scales must be positive constants; build with --fp16 instead of int8",
    "oca": "export with --inline-ops, which writes the op's body of standard operators",
    "enla": "export with --inline-ops, which writes the op's body of standard operators",
}
_DEFAULT_ADVICE = "export with --inline-ops or another --opset, or choose another --target"
MOST_SHOWN = 5


class GraphRefused(RuntimeError):
    """The parser refuses the graph.

    Attributes:
        hint: The graph pass or option that helps.
    """

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


def parse(library: Library, network: Any, graph: bytes, log: Log) -> Any:
    """Parse a graph into a network; returns the parser, which has to outlive the build.

    Raises:
        GraphRefused: Nodes are refused; each is named with its op and the reason.
    """
    parser = library.trt.OnnxParser(network, log.sink)
    since = log.position()
    if parser.parse(graph):
        return parser
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    if not errors:
        raise GraphRefused(log.errors(since) or "the parser gave no reason", _DEFAULT_ADVICE)
    shown = dict.fromkeys(_described(error) for error in errors)
    listed = "; ".join(list(shown)[:MOST_SHOWN])
    if len(shown) > MOST_SHOWN:
        listed += f"; and {len(shown) - MOST_SHOWN} more"
    ops = [str(error.node_operator()) for error in errors]
    advice = dict.fromkeys(_ADVICE[op] for op in ops if op in _ADVICE)
    raise GraphRefused(listed, "; ".join(advice) or _DEFAULT_ADVICE)


def _described(error: Any) -> str:
    """Node, op, place and reason of one refusal."""
    name, op = str(error.node_name()), str(error.node_operator())
    place = " in ".join(str(f) for f in error.local_function_stack())
    where = f"{op} '{name}'" if op else f"'{name}'" if name else "the graph"
    return f"{where}{f' in {place}' if place else ''}: {str(error.desc()).strip()}"
