"""``srdeploy models`` and ``srdeploy fetch``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from ..data import bundled_psnr, bundled_weights
from ..errors import SrDeployError
from ..models import all_variants
from ..models.weights.fetch import cached, fetch
from . import Say
from .listing import Page, aligned, broken, whole

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

TEST_SETS = ("Set5", "Set14", "BSD100")
FIGURES = ("parameters", "MACs", *TEST_SETS)
COLUMNS = ("variant", *FIGURES, "", "weights")
RIGHT = frozenset(map(COLUMNS.index, FIGURES))
BUNDLED, DOWNLOADED, FETCH, PAGE, TRAIN = "bundled", "downloaded", "fetch", "page", "train"
"""Where weights are or come from, in a word."""

UNKNOWN = "—"
Row: TypeAlias = dict[str, Any]


def list_models() -> list[Row]:
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


def format_models(rows: Sequence[Row]) -> RenderableType:
    """The rows for people: a table of at most 80 columns, and below it how to read and use it.

    On a narrower terminal each variant takes a few lines. A word that is longer than a line, such
    as an address, stays whole: to be printed with ``crop=False``.

    Args:
        rows: As :func:`list_models` gives them, the variants of a family one after another.
    """
    return Page(lambda width: _page(rows, width))


def _page(rows: Sequence[Row], width: int) -> Iterator[Text]:
    yield from _variants(rows, width)
    for heading, below in _notes(rows):
        yield whole("")
        for line in (heading, *(f"  {line}" for line in below)):
            yield from map(whole, broken(line, width))


def _variants(rows: Sequence[Row], width: int) -> Iterator[Text]:
    """A line or a few for each variant, an empty one between two families."""
    cells = _cells(rows)
    head, *lines = aligned([COLUMNS, *cells], RIGHT, 1)
    narrow = max(map(len, [head, *lines])) > width
    if not narrow:
        yield whole(head, "bold")
    for row, before, line, values in zip(rows, [None, *rows], lines, cells, strict=False):
        if before and before["architecture"] != row["architecture"]:
            yield whole("")
        yield from map(whole, _stacked(values, width) if narrow else [line])


def _cells(rows: Sequence[Row]) -> list[Sequence[str]]:
    sources = _sources(rows)
    return [
        (
            row["variant"],
            f"{row['parameters']:,}",
            f"{row['macs'] / 1e9:,.1f} G",
            *_figures(row["psnr"]),
            f"[{sources.index(row['psnr_source']) + 1}]" if row["psnr"] else "",
            _where(row),
        )
        for row in rows
    ]


def _stacked(cells: Sequence[str], width: int) -> Iterator[str]:
    """The cells of a variant below its name, with the heads of the table as words."""
    name, parameters, macs, *psnr, source, where = cells
    known = [f"{name} {value}" for name, value in zip(TEST_SETS, psnr, strict=True)]
    yield name
    yield from broken(f"  {parameters} parameters, {macs} MACs, weights: {where}", width)
    yield from broken(f"  PSNR {', '.join(known)} {source}".rstrip(), width)


def _notes(rows: Sequence[Row]) -> Iterator[tuple[str, Sequence[str]]]:
    """Each explanation below the table: a sentence, and what stands indented under it.

    Addresses and commands begin a line of their own, so that they stay whole where they can.
    """
    yield "MACs: for 1280×720 pixels of output.", []
    yield (
        f"PSNR: in dB on Y as published, {UNKNOWN} where that could not be read. Sources:",
        [f"[{n}] {source}" for n, source in enumerate(_sources(rows), 1)],
    )
    if measured := [row for row in rows if row["bundled_psnr"]]:
        figures = [(row["variant"], *_figures(row["bundled_psnr"])) for row in measured]
        yield (
            f"{BUNDLED}: the weights come with srdeploy; their PSNR, as measured:",
            aligned([("", *TEST_SETS), *figures], frozenset({1, 2, 3}), 1),
        )
    if any(_where(row) == DOWNLOADED for row in rows):
        yield f"{DOWNLOADED}: the authors' weights are in the cache.", []
    by_way: dict[str, list[Row]] = {}
    for row in rows:
        by_way.setdefault(_way(row), []).append(row)
    if fetched := by_way.get(FETCH):
        command = " ".join(["srdeploy fetch", *(row["variant"] for row in fetched)])
        yield f"{FETCH}: the authors' weights, one variant or several:", [command]
    if on_pages := by_way.get(PAGE):
        pages = dict.fromkeys((row["architecture"], row["weights"]) for row in on_pages)
        yield (
            f"{PAGE}: on a page of the authors, to be downloaded by hand:",
            [
                *(f"{family}: {page}" for family, page in pages),
                "then: srdeploy export --weights FILE",
            ],
        )
    if trained := by_way.get(TRAIN):
        name, command = trained[0]["variant"], trained[0]["get"]
        yield f"{TRAIN}: no weights are offered; those of {name}, say, are made by:", [command]


def _figures(psnr: dict[str, float] | None) -> list[str]:
    return [f"{psnr[name]:.2f}" if psnr else UNKNOWN for name in TEST_SETS]


def _sources(rows: Sequence[Row]) -> list[str]:
    """Where the PSNR were read, in the order of the rows."""
    return list(dict.fromkeys(row["psnr_source"] for row in rows if row["psnr"]))


def _where(row: Row) -> str:
    """Where the weights are that srdeploy would take, or the way to them, in a word."""
    if row["here"] is None:
        return _way(row)
    return BUNDLED if row["here"] == BUNDLED else DOWNLOADED


def _way(row: Row) -> str:
    """The way to weights that are not here, in a word."""
    if row["weights"] is None:
        return TRAIN
    return FETCH if row["licence"] else PAGE


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
