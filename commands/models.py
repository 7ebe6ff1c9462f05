"""``srdeploy models`` and ``srdeploy fetch``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ..data import bundled_psnr, bundled_weights
from ..errors import SrDeployError
from ..models import all_variants
from ..models.weights.fetch import cached, fetch
from . import Say

TEST_SETS = ("Set5", "Set14", "BSD100")


def list_models() -> list[dict[str, Any]]:
    """A row for every variant: what it costs, what its authors report, where its weights are."""
    rows = []
    for family, variant in all_variants():
        published, quality = variant.published, variant.quality
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
                "macs": variant.macs,
                "psnr": dict(zip(TEST_SETS, quality.psnr, strict=True)) if quality else None,
                "psnr_source": quality.source if quality else None,
                "paper": family.paper,
                "weights": published.url if published else variant.page or None,
                "licence": published.licence if published else None,
                "here": ", ".join(here) or None,
                "bundled_psnr": bundled_psnr(variant.name) or None,
                "get": variant.way_to_weights,
            }
        )
    return rows


def format_models(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """The rows as a table for people, with the sources of the PSNR below."""
    sources: list[str] = []
    head = f"{'variant':<21}{'parameters':>11}  {'MACs':>9}  {' / '.join(TEST_SETS):<24} weights"
    yield head
    for row in rows:
        psnr = "—"
        if row["psnr"]:
            if row["psnr_source"] not in sources:
                sources.append(row["psnr_source"])
            figures = " / ".join(f"{value:.2f}" for value in row["psnr"].values())
            psnr = f"{figures} [{sources.index(row['psnr_source']) + 1}]"
        yield (
            f"{row['variant']:<21}{row['parameters']:>11,}  {row['macs'] / 1e9:>7,.1f} G"
            f"  {psnr:<27} {row['here'] or row['get']}{_measured(row['bundled_psnr'])}"
        )
    yield "MACs: for 1280×720 pixels of output. PSNR in dB as published, Y channel:"
    for number, source in enumerate(sources, 1):
        yield f"  [{number}] {source}"


def _measured(psnr: dict[str, float] | None) -> str:
    if psnr is None:
        return ""
    return f", measured {' / '.join(f'{psnr[name]:.2f}' for name in TEST_SETS)}"


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
