"""Finds the weights of a model: a file that was named, the download cache, the bundle."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from ...data import bundled_psnr, bundled_weights
from ...errors import CheckpointError, WeightsMissing
from ...spec import ModelSpec
from .. import Variant, candidates
from .checkpoint import describe, load_network
from .fetch import cached

JUDGE = "Set5"
"""The data set by which bundled weights are compared."""


@dataclass(frozen=True)
class Found:
    """Weights of a variant that are on this machine."""

    variant: Variant
    path: Path
    label: str


def find(model: str, scale: int) -> Found:
    """The best variant of ``model`` whose weights are here.

    Official weights come before bundled ones, and the larger variant before the smaller; of
    bundled ones the better comes first, which may be the smaller that was trained for longer.

    Raises:
        SrDeployError: ``model`` is unknown or has no such scale.
        WeightsMissing: No variant has weights here; the hint names the ways out.
    """
    fitting = candidates(model, scale)
    bundled = []
    for _, variant in fitting:
        if variant.published and (path := cached(variant.published)):
            return Found(variant, path, f"official {variant.published.file_name}")
        if bundle := bundled_weights(variant.name):
            bundled.append(Found(variant, bundle, f"bundled {variant.name}"))
    if bundled:
        return max(bundled, key=lambda found: bundled_psnr(found.variant.name).get(JUDGE, 0.0))
    ways = [variant.way_to_weights for _, variant in fitting]
    best = next((way for way in ways if way.startswith("srdeploy fetch")), ways[0])
    own = "" if "--weights" in best else ", or srdeploy export --weights FILE"
    raise WeightsMissing(f"no weights of {model} x{scale} are here", best + own)


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


def random_network(model: str, scale: int) -> tuple[nn.Module, ModelSpec]:
    """An untrained network of the best variant of ``model``, for benchmarks; its spec says so."""
    family, variant = candidates(model, scale)[0]
    torch.manual_seed(0)
    network = family.build(variant.config).eval().requires_grad_(False)
    spec = describe(family, variant.config, network, "random")
    return network, dataclasses.replace(spec, random_weights=True)
