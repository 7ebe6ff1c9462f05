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

if TYPE_CHECKING:
    from rich.console import Group, RenderableType
    from rich.table import Table

TEST_SETS = ("Set5", "Set14", "BSD100")
FIGURES = ("parameters", "MACs", *TEST_SETS)
COLUMNS = ("variant", *FIGURES, "", "weights")
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


def format_models(rows: Sequence[Row]) -> Group:
    """The rows for people: a table of at most 80 columns, and below it how to read and use it.

    Args:
        rows: As :func:`list_models` gives them, the variants of a family one after another.
    """
    from rich.console import Group
    from rich.padding import Padding
    from rich.text import Text

    parts: list[RenderableType] = [_table_of_variants(rows)]
    for heading, below in _notes(rows):
        parts += ["", Text(heading), *(Padding.indent(part, 2) for part in below)]
    return Group(*parts)


def _table_of_variants(rows: Sequence[Row]) -> Table:
    sources = _sources(rows)
    lines: list[Sequence[str]] = []
    for row, before in zip(rows, [None, *rows], strict=False):
        if before and before["architecture"] != row["architecture"]:
            lines.append([""] * len(COLUMNS))
        lines.append(
            (
                row["variant"],
                f"{row['parameters']:,}",
                f"{row['macs'] / 1e9:,.1f} G",
                *_figures(row["psnr"]),
                f"[{sources.index(row['psnr_source']) + 1}]" if row["psnr"] else "",
                _where(row),
            )
        )
    return _table(COLUMNS, lines)


def _notes(rows: Sequence[Row]) -> Iterator[tuple[str, Sequence[RenderableType]]]:
    """Each explanation below the table: a sentence, and what stands indented under it.

    Addresses and commands begin a line of their own, so that they stay whole where they can.
    """
    from rich.text import Text

    yield "MACs: for 1280×720 pixels of output.", []
    yield (
        f"PSNR: in dB on Y as published, {UNKNOWN} where that could not be read. Sources:",
        [Text(f"[{n}] {source}") for n, source in enumerate(_sources(rows), 1)],
    )
    if measured := [row for row in rows if row["bundled_psnr"]]:
        figures = [(row["variant"], *_figures(row["bundled_psnr"])) for row in measured]
        yield (
            f"{BUNDLED}: the weights come with srdeploy; their PSNR, as measured:",
            [_table(("", *TEST_SETS), figures)],
        )
    if any(_where(row) == DOWNLOADED for row in rows):
        yield f"{DOWNLOADED}: the authors' weights are in the cache.", []
    by_way: dict[str, list[Row]] = {}
    for row in rows:
        by_way.setdefault(_way(row), []).append(row)
    if fetched := by_way.get(FETCH):
        command = " ".join(["srdeploy fetch", *(row["variant"] for row in fetched)])
        yield f"{FETCH}: the authors' weights, one variant or several:", [Text(command)]
    if on_pages := by_way.get(PAGE):
        pages = dict.fromkeys((row["architecture"], row["weights"]) for row in on_pages)
        yield (
            f"{PAGE}: on a page of the authors, to be downloaded by hand:",
            [
                *(Text(f"{family}: {page}") for family, page in pages),
                Text("then: srdeploy export --weights FILE"),
            ],
        )
    if trained := by_way.get(TRAIN):
        name, command = trained[0]["variant"], trained[0]["get"]
        yield (
            f"{TRAIN}: no weights are offered; those of {name}, say, are made by:",
            [Text(command)],
        )


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Columns as wide as what they hold, on however narrow a terminal: no name is cut."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for head, *cells in zip(heads, *rows, strict=True):
        table.add_column(
            head,
            justify="right" if head in FIGURES else "left",
            min_width=max(map(len, [head, *cells])),
        )
    for row in rows:
        table.add_row(*map(Text, row))
    return table


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
