"""OCA and ENLA in plain PyTorch, as their papers write them: what the kernels are held against.

Sources: Chen et al., arXiv:2205.04437, section 3.2; Xia et al., arXiv:2201.03794, section 3.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from ..plugins.oca.op import relative_rows


def oca_unfolded(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor, window: int, overlap: int, heads: int
) -> Tensor:
    """Overlapping cross-attention with unfolded keys and written scores.

    Arguments and result as of ``srdeploy::oca``, in the type of the arguments throughout.
    """
    queries, keys, values, dense = _unfolded(q, k, v, bias, window, overlap, heads)
    scores = (queries * queries.shape[-1] ** -0.5) @ keys.transpose(-2, -1) + dense
    return _folded(scores.softmax(-1) @ values, q, window)


def oca_sdpa(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor, window: int, overlap: int, heads: int
) -> Tensor:
    """The same with ``scaled_dot_product_attention`` on the unfolded keys."""
    queries, keys, values, dense = _unfolded(q, k, v, bias, window, overlap, heads)
    d = queries.shape[-1]
    # 16-bit kernels want a multiple of 8 channels; zeros change no product
    queries, keys, values = (F.pad(t, (0, -d % 8)) for t in (queries, keys, values))
    attended = F.scaled_dot_product_attention(
        queries, keys, values, attn_mask=dense[None], scale=d**-0.5
    )
    return _folded(attended[..., :d], q, window)


def enla_written(q: Tensor, k: Tensor, v: Tensor, projection: Tensor, eps: float) -> Tensor:
    """Efficient non-local attention with all random features written.

    Arguments and result as of ``srdeploy::enla``, in the type of the arguments throughout.
    """

    def features(x: Tensor) -> Tensor:  # N×m×pixels
        x = x.flatten(2)
        exponent = projection @ x - x.square().sum(1, keepdim=True) / 2
        positive: Tensor = (exponent.exp() + eps) * projection.shape[0] ** -0.5
        return positive

    of_q, of_k = features(q), features(k)
    context = v.flatten(2) @ of_k.transpose(1, 2)
    normaliser = of_k.sum(2).unsqueeze(1) @ of_q
    attended: Tensor = (context @ of_q / normaliser).reshape(v.shape)
    return attended


@cache
def rows_on(window: int, key_window: int, device: torch.device) -> Tensor:
    """Rows of the bias table where they are needed, as HAT holds them in a buffer."""
    return relative_rows(window, key_window).to(device)


def _unfolded(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor, window: int, overlap: int, heads: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Queries, keys, values, windows×heads×pixels×d, and biases, heads×pixels×pixels."""
    n, height, width, channels = q.shape
    below, beside = -height % window, -width % window
    key_window, d = window + overlap, channels // heads

    def squares(x: Tensor, edge: int, margin: int) -> Tensor:
        x = F.pad(x.permute(0, 3, 1, 2), (0, beside, 0, below))
        x = F.unfold(x, edge, stride=window, padding=margin)
        x = x.reshape(n, heads, d, edge * edge, -1).permute(0, 4, 1, 3, 2)
        return x.reshape(-1, heads, edge * edge, d)

    dense = bias[rows_on(window, key_window, bias.device)].permute(2, 0, 1).contiguous()
    around = (squares(x, key_window, overlap // 2) for x in (k, v))
    return squares(q, window, 0), *around, dense  # type: ignore[return-value]


def _folded(x: Tensor, like: Tensor, window: int) -> Tensor:
    """windows×heads×pixels×d back to the map."""
    n, height, width, channels = like.shape
    down, across = -(-height // window), -(-width // window)
    x = x.transpose(1, 2).reshape(n, down, across, window, window, channels)
    x = x.transpose(2, 3).reshape(n, down * window, across * window, channels)
    return x[:, :height, :width]
