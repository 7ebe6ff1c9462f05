"""Finds the weights of a model: a file that was named, the download cache, the bundle."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from ...data import bundled_weights
from ...errors import CheckpointError, WeightsMissing
from ...spec import ModelSpec
from .. import Architecture, Variant, candidates
from .checkpoint import describe, load_network
from .fetch import cached


@dataclass(frozen=True)
class Found:
    """Weights of a variant that are on this machine."""

    family: Architecture
    variant: Variant
    path: Path
    label: str


def find(model: str, scale: int) -> Found:
    """The best variant of ``model`` whose weights are here; the cache before the bundle.

    Raises:
        SrDeployError: ``model`` is unknown or has no such scale.
        WeightsMissing: No variant has weights here; the hint names the ways out.
    """
    fitting = candidates(model, scale)
    for family, variant in fitting:
        if variant.published and (path := cached(variant.published)):
            return Found(family, variant, path, f"official {variant.published.file_name}")
        if bundle := bundled_weights(variant.name):
            return Found(family, variant, bundle, f"bundled {variant.name}")
    raise WeightsMissing(f"no weights of {model} x{scale} are here", _ways_out(fitting))


def _ways_out(fitting: Sequence[tuple[Architecture, Variant]]) -> str:
    """Where to get weights of one of these variants."""
    fetchable = next((v.name for _, v in fitting if v.published), None)
    page = next((v.page for _, v in fitting if v.page), None)
    use = "srdeploy export --weights CHECKPOINT"
    if fetchable:
        return f"srdeploy fetch {fetchable}, or {use}"
    if page:
        return f"download a checkpoint from {page}, then {use}"
    return f"{use}, or srdeploy train --model {fitting[0][1].model}"


def load(model: str, scale: int) -> tuple[nn.Module, ModelSpec]:
    """Load the best weights of ``model`` that are here; see :func:`find`."""
    found = find(model, scale)
    network, spec = load_network(found.path, found.label)
    if spec.variant != found.variant.name:
        raise CheckpointError(
            f"{found.path} holds {spec.variant}, expected {found.variant.name}",
            "remove it and fetch it again",
        )
    return network, spec


def random_network(model: str, scale: int, seed: int = 0) -> tuple[nn.Module, ModelSpec]:
    """An untrained network of the best variant of ``model``, for benchmarks; its spec says so."""
    family, variant = candidates(model, scale)[0]
    torch.manual_seed(seed)
    network = family.build(variant.config).eval().requires_grad_(False)
    spec = describe(family, variant.config, network, "random")
    return network, dataclasses.replace(spec, random_weights=True)
