"""ENLCN's training: a contrastive loss on what its attentions compare, and fresh projections.

Source: Xia et al., "Efficient Non-Local Contrastive Attention for Image Super-Resolution", AAAI
2022, arXiv:2201.03794, section "Sparse Aggregation" and the training settings.

An attention compares queries and keys of length √k, so T_ij = q_i·k_j is at most k = 6. Row i
sorted from high to low is T'_i; of its N entries, one for each pixel, the first n1·N are related
and the n1·N from rank n2·N on unrelated:

    L_cl = 1/N Σ_i max(0, b - log( Σ_{j < n1·N} exp T'_ij / Σ_{n2·N <= j < (n1 + n2)·N} exp T'_ij ))

and the loss is L_1 + λ·L_cl, here with the mean over the attentions as L_cl.

The paper's published code differs from its text: it takes the 5 first entries against all from
the 50th on, whatever N is. The text is what stands here.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

from ..errors import TrainingError
from ..models.networks.enlcn import LinearAttention, orthogonal_features
from .recipe import Contrastive


class ContrastiveLoss:
    """L1 and the contrastive loss of an ENLCN, whose projections it draws anew.

    It listens to the attentions only between :meth:`begin_step` and the call that follows, so a
    copy of the network made elsewhere, such as its average, carries nothing of it.

    A projection is a pure function of the seed, the epoch and the attention: a resumed run has
    that of an uninterrupted one. It is a buffer, which the loop copies to the average of the
    weights, so that the average is judged and stored with it.

    Args:
        network: An ENLCN, or what holds one; it is changed in place.
        settings: Weight, shares, margin, and when.
        seed: Of the projections.

    Raises:
        TrainingError: The network has no such attention, or the settings contradict each other.
    """

    def __init__(self, network: nn.Module, settings: Contrastive, seed: int) -> None:
        self._attentions = attentions(network)
        if not self._attentions:
            raise TrainingError(
                f"{type(network).__name__} has no non-local attention",
                "the contrastive loss is for ENLCN: train this network with L1",
            )
        if not 0 < settings.related <= settings.unrelated_from <= 1 - settings.related:
            raise TrainingError(
                f"related keys {settings.related}, unrelated ones from {settings.unrelated_from}:"
                " expected 0 < related <= unrelated_from <= 1 - related",
                "both are shares of all keys; the paper's are 0.02 and 0.08",
            )
        if settings.redraw_every < 1:
            raise TrainingError(
                f"redraw_every is {settings.redraw_every}", "give a number of steps, 1 or more"
            )
        self._settings, self._seed = settings, seed
        self._epoch: int | None = None
        self._hooks: list[RemovableHandle] = []
        self._compared: list[tuple[Tensor, Tensor]] = []

    def begin_step(self, step: int) -> None:
        """Make the network ready for the forward pass of ``step``, which counts from 0."""
        epoch = step // self._settings.redraw_every
        if epoch != self._epoch:
            for layer, attention in enumerate(self._attentions):
                draw_projection(attention, self._seed, epoch, layer)
            self._epoch = epoch
        self._stop_listening()
        if self._settings.weight and step >= self._settings.warmup:
            self._hooks = [a.register_forward_pre_hook(self._keep) for a in self._attentions]

    def __call__(self, upscaled: Tensor, low: Tensor, high: Tensor) -> Tensor:  # noqa: ARG002
        """The scalar loss of N×3×sH×sW against HR of the same shape; ``low`` is not looked at.

        Raises:
            TrainingError: No forward pass came since the step began.
        """
        loss = F.l1_loss(upscaled, high)
        if self._hooks:
            if not self._compared:
                raise TrainingError(
                    "the attentions compared nothing in this step",
                    "the forward pass comes between begin_step and the loss, without torch.compile",
                )
            s = self._settings
            contrasts = [
                F.relu(s.margin - gaps(q, k, s.related, s.unrelated_from)).mean()
                for q, k in self._compared
            ]
            loss = loss + s.weight * torch.stack(contrasts).mean()
        self._stop_listening()
        return loss

    def _keep(self, _: nn.Module, inputs: tuple[Tensor, Tensor, Tensor]) -> None:
        self._compared.append(inputs[:2])

    def _stop_listening(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks, self._compared = [], []


def attentions(network: nn.Module) -> list[LinearAttention]:
    """The attentions of an ENLCN in their order; none in other networks."""
    return [m for m in network.modules() if isinstance(m, LinearAttention)]


def gaps(queries: Tensor, keys: Tensor, related: float, unrelated_from: float) -> Tensor:
    """How far each query's related keys are above its unrelated ones, in the exponent.

    One picture at a time, as its N×N products are 21 MiB for a patch of 48×48. Only the ranks
    and the products of (n1 + n2)·N keys a query are kept for the gradient, 6 MiB.

    Args:
        queries: Scaled embeddings, B×c×H×W; N = H·W.
        keys: Likewise.
        related: n1.
        unrelated_from: n2.

    Returns:
        log of the quotient in the module's equation, B×N float32; (n1·N, n2·N) are rounded down
        and at least 1.

    Raises:
        TrainingError: A picture of a single pixel.
    """
    pixels = queries.shape[-2] * queries.shape[-1]
    if pixels < 2:
        raise TrainingError("a patch of one pixel has nothing to compare", "use larger patches")
    few = max(1, int(related * pixels))
    start = max(few, int(unrelated_from * pixels))
    found = []
    with torch.autocast(queries.device.type, enabled=False):
        for q, k in zip(queries.flatten(2).float(), keys.flatten(2).float(), strict=True):
            ranked = (q.T @ k).topk(start + few, dim=1).values
            found.append(ranked[:, :few].logsumexp(1) - ranked[:, start:].logsumexp(1))
    return torch.stack(found)


def draw_projection(attention: LinearAttention, seed: int, epoch: int, layer: int) -> None:
    """Give an attention the projection of an epoch; ``layer`` tells the attentions apart."""
    rows, columns = attention.projection_matrix.shape
    state = np.random.SeedSequence((seed, epoch, layer)).generate_state(1, np.uint64)
    generator = torch.Generator().manual_seed(int(state[0]))
    attention.projection_matrix.copy_(orthogonal_features(rows, columns, generator))
