"""ENLA as an ONNX node: its schema, and its body of standard operators.

The body calls two more nodes, one for each kernel, with a standard sum between them: where
only those two are plugins, a parser that opens the body finds them.
"""

from __future__ import annotations

from onnx import TensorProto, TypeProto
from onnx.shape_inference import InferenceContext

from ..onnx_schema import attribute, node_schema

# φ without its constant factor, as both bodies begin: of x, N×c×H×W, N×m×pixels float32.
_FEATURES = """
    rows = Constant <value_ints: ints = [0, 0, -1]> ()
    x_rows = Reshape (x, rows)
    x_float = Cast <to: int = 1> (x_rows)
    f = Cast <to: int = 1> (projection)
    channel = Constant <value_ints: ints = [1]> ()
    half = Constant <value_float: float = 0.5> ()
    projected = MatMul (f, x_float)
    squares = Mul (x_float, x_float)
    length = ReduceSum <keepdims: int = 1> (squares, channel)
    half_length = Mul (length, half)
    exponent = Sub (projected, half_length)
    exponential = Exp (exponent)
    floor = Constant <value_float: float = @eps> ()
    features = Add (exponential, floor)
"""

BODIES = {
    "enla": """
enla <eps> (q, k, v, projection) => (out)
{
    sums = srdeploy.enla_context
        <eps: float = @eps, plugin_namespace: string = @plugin_namespace,
         plugin_version: string = @plugin_version> (k, v, projection)
    chunk = Constant <value_ints: ints = [1]> ()
    context = ReduceSum <keepdims: int = 0> (sums, chunk)
    out = srdeploy.enla_apply
        <eps: float = @eps, plugin_namespace: string = @plugin_namespace,
         plugin_version: string = @plugin_version> (q, projection, context)
}""",
    # One chunk of all pixels: how many a kernel makes is its own affair.
    "enla_context": f"""
enla_context <eps> (x, v, projection) => (sums)
{{{_FEATURES}
    v_rows = Reshape (v, rows)
    values = Cast <to: int = 1> (v_rows)
    turned = Transpose <perm: ints = [0, 2, 1]> (features)
    context = MatMul (values, turned)
    pixel = Constant <value_ints: ints = [2]> ()
    column = ReduceSum <keepdims: int = 0> (features, pixel)
    total = Unsqueeze (column, channel)
    both = Concat <axis: int = 1> (context, total)
    sums = Unsqueeze (both, channel)
}}""",
    "enla_apply": f"""
enla_apply <eps> (x, projection, context) => (out)
{{{_FEATURES}
    first = Constant <value_ints: ints = [0]> ()
    last = Constant <value_ints: ints = [-1]> ()
    end = Constant <value_ints: ints = [9223372036854775807]> ()
    of_values = Slice (context, first, last, channel)
    total = Slice (context, last, end, channel)
    numerator = MatMul (of_values, features)
    denominator = MatMul (total, features)
    quotient = Div (numerator, denominator)
    typed = CastLike (quotient, x)
    n = Shape <start: int = 0, end: int = 1> (x)
    size = Shape <start: int = 2, end: int = 4> (x)
    shape = Concat <axis: int = 0> (n, last, size)
    out = Reshape (typed, shape)
}}""",
}


def _infer(context: InferenceContext) -> None:
    """Out has the type of q and the shape of v."""
    q, values = context.get_input_type(0), context.get_input_type(2)
    if q is None or values is None:  # where the types of a graph are not known yet
        return
    out = TypeProto()
    out.CopyFrom(q)
    out.tensor_type.ClearField("shape")
    if values.tensor_type.HasField("shape"):
        out.tensor_type.shape.CopyFrom(values.tensor_type.shape)
    context.set_output_type(0, out)


def _infer_context(context: InferenceContext) -> None:
    """N×chunks×(C + 1)×m float32."""
    if any(context.get_input_type(i) is None for i in (1, 2)):
        return
    out = TypeProto()
    out.tensor_type.elem_type = TensorProto.FLOAT
    v, projection = (context.get_input_type(i).tensor_type.shape.dim for i in (1, 2))
    n, _, rows, m = (out.tensor_type.shape.dim.add() for _ in range(4))
    if v:
        n.CopyFrom(v[0])
        if v[1].HasField("dim_value"):
            rows.dim_value = v[1].dim_value + 1
    if projection:
        m.CopyFrom(projection[0])
    context.set_output_type(0, out)


def _infer_apply(context: InferenceContext) -> None:
    """Out has the type, batch and size of q; C is one less than the rows of the context."""
    if any(context.get_input_type(i) is None for i in (0, 2)):
        return
    q, summed = (context.get_input_type(i).tensor_type for i in (0, 2))
    out = TypeProto()
    out.tensor_type.elem_type = q.elem_type
    n, channels, height, width = (out.tensor_type.shape.dim.add() for _ in range(4))
    if q.shape.dim:
        for mine, theirs in zip((n, height, width), (0, 2, 3), strict=True):
            mine.CopyFrom(q.shape.dim[theirs])
    if summed.shape.dim and summed.shape.dim[1].HasField("dim_value"):
        channels.dim_value = summed.shape.dim[1].dim_value - 1
    context.set_output_type(0, out)


_EPS = [attribute("eps", float, "Added to each exponential.")]
_QUERIES = "Queries, N×c×H×W."
_KEYS = "Keys, N×c×H×W."
_VALUES = "Values, N×C×H×W."
_PROJECTION = "The random projection F, m×c."

SCHEMAS = [
    node_schema(
        "enla",
        "ENLCN's efficient non-local attention: φ(q)·Σφ(k)vᵀ / φ(q)·Σφ(k).",
        {"q": _QUERIES, "k": _KEYS, "v": _VALUES, "projection": _PROJECTION},
        {"out": "N×C×H×W."},
        _EPS,
        _infer,
    ),
    node_schema(
        "enla_context",
        "Its first half: sums of [v, 1]·φ(k)ᵀ over chunks of pixels.",
        {"k": _KEYS, "v": _VALUES, "projection": _PROJECTION},
        {"sums": "Float32, N×chunks×(C + 1)×m."},
        _EPS,
        _infer_context,
    ),
    node_schema(
        "enla_apply",
        "Its second half: the sums over all pixels, asked by the queries.",
        {
            "q": _QUERIES,
            "projection": _PROJECTION,
            "context": "Float32, N×(C + 1)×m.",
        },
        {"out": "N×C×H×W."},
        _EPS,
        _infer_apply,
    ),
]
