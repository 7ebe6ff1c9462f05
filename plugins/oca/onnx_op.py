"""OCA as an ONNX node: its schema, and its body of standard operators."""

from __future__ import annotations

from onnx.shape_inference import InferenceContext

from ..onnx_schema import attribute, node_schema

BODIES = {
    # Windows become a batch, so that what follows is the attention that builders know:
    # MatMul, Add, Softmax, MatMul on windows×heads×pixels×d. Both products are in the type of
    # the maps; bias, scores and softmax are float32.
    "oca": """
oca <window, overlap, heads> (q, k, v, bias) => (out)
{
    zero = Constant <value_int: int = 0> ()
    one = Constant <value_int: int = 1> ()
    two = Constant <value_int: int = 2> ()
    vector = Constant <value_ints: ints = [1]> ()
    flat = Constant <value_ints: ints = [-1]> ()
    column = Constant <value_ints: ints = [-1, 1]> ()
    nothing = Constant <value_ints: ints = [0]> ()
    scalar_edge = Constant <value_int: int = @window> ()
    scalar_overlap = Constant <value_int: int = @overlap> ()
    scalar_heads = Constant <value_int: int = @heads> ()
    scalar_key_edge = Add (scalar_edge, scalar_overlap)
    scalar_margin = Div (scalar_overlap, two)
    edge = Reshape (scalar_edge, vector)
    key_edge = Reshape (scalar_key_edge, vector)
    margin = Reshape (scalar_margin, vector)
    head_count = Reshape (scalar_heads, vector)
    n = Shape <start: int = 0, end: int = 1> (q)
    height = Shape <start: int = 1, end: int = 2> (q)
    width = Shape <start: int = 2, end: int = 3> (q)
    channels = Shape <start: int = 3, end: int = 4> (q)
    d = Div (channels, head_count)

    edge_less_one = Sub (edge, vector)
    height_up = Add (height, edge_less_one)
    down = Div (height_up, edge)
    width_up = Add (width, edge_less_one)
    across = Div (width_up, edge)
    whole_height = Mul (down, edge)
    whole_width = Mul (across, edge)
    below = Sub (whole_height, height)
    beside = Sub (whole_width, width)

    q_pads = Concat <axis: int = 0> (
        nothing, nothing, nothing, nothing, nothing, below, beside, nothing)
    q_whole = Pad (q, q_pads)
    q_split = Concat <axis: int = 0> (n, down, edge, across, edge, head_count, d)
    q_parts = Reshape (q_whole, q_split)
    q_turned = Transpose <perm: ints = [0, 1, 3, 5, 2, 4, 6]> (q_parts)
    edge_squared = Mul (edge, edge)
    q_batch = Concat <axis: int = 0> (flat, head_count, edge_squared, d)
    queries = Reshape (q_turned, q_batch)

    margin_below = Add (margin, below)
    margin_beside = Add (margin, beside)
    k_pads = Concat <axis: int = 0> (
        nothing, margin, margin, nothing, nothing, margin_below, margin_beside, nothing)
    k_whole = Pad (k, k_pads)
    v_whole = Pad (v, k_pads)
    along_key = Range (zero, scalar_key_edge, one)
    scalar_down = Squeeze (down)
    count_down = Range (zero, scalar_down, one)
    start_down = Mul (count_down, scalar_edge)
    column_down = Reshape (start_down, column)
    square_down = Add (column_down, along_key)
    rows = Reshape (square_down, flat)
    scalar_across = Squeeze (across)
    count_across = Range (zero, scalar_across, one)
    start_across = Mul (count_across, scalar_edge)
    column_across = Reshape (start_across, column)
    square_across = Add (column_across, along_key)
    columns = Reshape (square_across, flat)
    k_rows = Gather <axis: int = 1> (k_whole, rows)
    k_taken = Gather <axis: int = 2> (k_rows, columns)
    v_rows = Gather <axis: int = 1> (v_whole, rows)
    v_taken = Gather <axis: int = 2> (v_rows, columns)
    k_split = Concat <axis: int = 0> (n, down, key_edge, across, key_edge, head_count, d)
    k_parts = Reshape (k_taken, k_split)
    v_parts = Reshape (v_taken, k_split)
    k_turned = Transpose <perm: ints = [0, 1, 3, 5, 2, 4, 6]> (k_parts)
    v_turned = Transpose <perm: ints = [0, 1, 3, 5, 2, 4, 6]> (v_parts)
    key_edge_squared = Mul (key_edge, key_edge)
    k_batch = Concat <axis: int = 0> (flat, head_count, key_edge_squared, d)
    keys = Reshape (k_turned, k_batch)
    values = Reshape (v_turned, k_batch)
    keys_across = Transpose <perm: ints = [0, 1, 3, 2]> (keys)

    along = Range (zero, scalar_edge, one)
    along_column = Reshape (along, column)
    apart = Sub (along_key, along_column)
    shift = Sub (one, scalar_overlap)
    difference = Add (apart, shift)
    d_y_axes = Constant <value_ints: ints = [1, 3]> ()
    d_x_axes = Constant <value_ints: ints = [0, 2]> ()
    difference_y = Unsqueeze (difference, d_y_axes)
    difference_x = Unsqueeze (difference, d_x_axes)
    both_edges = Add (edge, key_edge)
    table_edge = Sub (both_edges, vector)
    table_rows = Mul (table_edge, table_edge)
    table_y = Mul (difference_y, table_edge)
    table_row = Add (table_y, difference_x)
    negative = Less (table_row, zero)
    table_row_up = Add (table_row, table_rows)
    wrapped = Where (negative, table_row_up, table_row)
    pairs = Concat <axis: int = 0> (edge_squared, key_edge_squared)
    position = Reshape (wrapped, pairs)
    by_position = Gather <axis: int = 0> (bias, position)
    by_head = Transpose <perm: ints = [2, 0, 1]> (by_position)

    d_float = Cast <to: int = 1> (d)
    root = Sqrt (d_float)
    root_like = CastLike (root, q)
    scaled = Div (queries, root_like)
    products = MatMul (scaled, keys_across)
    logits = Cast <to: int = 1> (products)
    biases = Cast <to: int = 1> (by_head)
    scores = Add (logits, biases)
    softmax = Softmax <axis: int = -1> (scores)
    weights = CastLike (softmax, v)
    weighted = MatMul (weights, values)

    o_split = Concat <axis: int = 0> (n, down, across, head_count, edge, edge, d)
    o_parts = Reshape (weighted, o_split)
    o_turned = Transpose <perm: ints = [0, 1, 4, 2, 5, 3, 6]> (o_parts)
    o_size = Concat <axis: int = 0> (n, whole_height, whole_width, channels)
    o_whole = Reshape (o_turned, o_size)
    starts = Constant <value_ints: ints = [0, 0]> ()
    axes = Constant <value_ints: ints = [1, 2]> ()
    size = Concat <axis: int = 0> (height, width)
    out = Slice (o_whole, starts, size, axes)
}""",
}


def _infer(context: InferenceContext) -> None:
    """Out is like q."""
    if (q := context.get_input_type(0)) is not None:  # the types of a graph may not be known yet
        context.set_output_type(0, q)


SCHEMAS = [
    node_schema(
        "oca",
        "HAT's overlapping cross-attention: each window of queries asks the larger window"
        " of keys around it.",
        {
            "q": "Queries, N×H×W×C.",
            "k": "Keys, likewise.",
            "v": "Values, likewise.",
            "bias": "Table of position biases, (E + K - 1)²×heads.",
        },
        {"out": "Likewise."},
        [
            attribute("window", int, "Edge E of a window of queries, pixels."),
            attribute("overlap", int, "K - E, by how much a window of keys is larger, pixels."),
            attribute("heads", int, "Attention heads; they divide C."),
        ],
        _infer,
    )
]
