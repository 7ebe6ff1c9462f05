"""``srdeploy models`` and ``srdeploy fetch``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..data import bundled_weights
from ..errors import SrDeployError
from ..models import all_variants
from ..models.weights.fetch import cached, fetch
from . import Say


def list_models() -> list[dict[str, Any]]:
    """A row for every variant: name, scale, parameters, paper, source, licence, what is here."""
    rows = []
    for family, variant in all_variants():
        published = variant.published
        here = [
            *(["official, downloaded"] if published and cached(published) else []),
            *(["bundled"] if bundled_weights(variant.name) else []),
        ]
        rows.append(
            {
                "variant": variant.name,
                "architecture": family.name,
                "scale": variant.scale,
                "parameters": variant.parameters,
                "paper": family.paper,
                "weights": published.url if published else None,
                "licence": published.licence if published else None,
                "here": ", ".join(here)
                or ("srdeploy fetch " + variant.name if published else "no"),
            }
        )
    return rows


def fetch_weights(
    names: Sequence[str], say: Say, progress: Callable[[int, int], None] | None
) -> list[Path]:
    """Download the official weights of the named variants to the cache.

    Raises:
        SrDeployError: A name is unknown or has no official weights.
        FetchError: A download failed.
    """
    fetchable = {v.name: v.published for _, v in all_variants() if v.published}
    unknown = [name for name in names if name not in fetchable]
    if unknown:
        raise SrDeployError(
            f"there are no official weights of '{unknown[0]}'",
            f"to be had: {', '.join(fetchable)}",
        )
    paths = []
    for name in names:
        paths.append(fetch(fetchable[name], progress))
        say(f"{name}: {paths[-1]} (licence: {fetchable[name].licence})")
    return paths
