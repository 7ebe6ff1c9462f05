"""What ``srdeploy models`` shows, on a terminal of any width."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console
from srdeploy.commands import models
from srdeploy.commands.models import TEST_SETS, Row, format_models, list_models

NARROW, WIDE, PIPE = 80, 120, 10_000
ADDRESS = re.compile(r"https?://[^\s,]+")


def shown(rows: list[Row], width: int) -> list[str]:
    file = io.StringIO()
    Console(file=file, width=width, color_system=None).print(format_models(rows), crop=False)
    lines = file.getvalue().splitlines()
    assert not [line for line in lines if line.endswith(" ")]
    return lines


def line_of(name: str, lines: list[str]) -> str:
    (line,) = (line for line in lines if line.startswith(f"{name} "))
    return line


def figures(psnr: dict[str, float]) -> list[str]:
    return [f"{psnr[name]:.2f}" for name in TEST_SETS]


@pytest.mark.parametrize("width", [NARROW, WIDE, PIPE])
def test_a_variant_is_one_line(width: int) -> None:
    rows = list_models()
    lines = shown(rows, width)
    assert max(map(len, lines)) <= min(width, WIDE)
    for row in rows:
        words = line_of(row["variant"], lines).split()
        assert words[1:4] == [f"{row['parameters']:,}", f"{row['macs'] / 1e9:,.1f}", "G"]
        if row["psnr"]:
            assert words[4:7] == figures(row["psnr"])
            assert f"  {words[7]} {row['psnr_source']}" in lines
        way = row["get"].removeprefix("srdeploy ").split()[0].replace("download", "page")
        assert words[-1] == (row["here"] or way)


def test_a_page_says_how_to_come_by_weights_and_what_the_bundled_ones_reach() -> None:
    rows = list_models()
    lines = shown(rows, NARROW)
    assert "  srdeploy train --model attentionsr --scale 2" in lines
    for row in rows:
        for address in ADDRESS.findall(row["get"]):
            assert len(address) < NARROW - 2
            assert f"  {row['architecture']}: {address}" in lines
        if row["get"].startswith("srdeploy fetch"):
            assert row["variant"] in next(s for s in lines if "srdeploy fetch" in s).split()
        if row["bundled_psnr"]:
            assert line_of(f"  {row['variant']}", lines).split()[1:] == figures(row["bundled_psnr"])


def test_the_longest_address_that_fits_stays_whole() -> None:
    address = "https://example.org/".ljust(NARROW - 3, "x")
    rows = [row | {"weights": address} for row in list_models() if row["variant"] == "hat-x4"]
    assert f"  {address}" in shown(rows, NARROW)


@pytest.mark.parametrize("width", [40, 60, 73, NARROW, WIDE])
def test_no_line_is_longer_than_the_terminal(width: int) -> None:
    """But for an address, which stays whole."""
    for line in shown(list_models(), width):
        assert len(line) <= width or len(line.split()) == 1


@pytest.mark.parametrize("width", [40, 60])
def test_a_variant_takes_a_few_lines_on_a_narrower_terminal(width: int) -> None:
    rows = list_models()
    lines = shown(rows, width)
    notes = lines.index("", lines.index("vapsr-s-x4"))
    assert lines[:notes].count("") == len({row["architecture"] for row in rows}) - 1
    names = [line for line in lines[:notes] if line and not line.startswith(" ")]
    assert names == [row["variant"] for row in rows]
    told = " ".join(" ".join(lines).split())
    for row in rows:
        cost = f"{row['parameters']:,} parameters, {row['macs'] / 1e9:,.1f} G MACs, weights: "
        assert f"{row['variant']} {cost}{row['here'] or ''}" in told
        if row["psnr"]:
            quality = zip(TEST_SETS, figures(row["psnr"]), strict=True)
            assert f"PSNR {', '.join(map(' '.join, quality))} [" in told
    assert "vapsr-s-x4 31.46 28.17 27.34" in told


def test_downloaded_weights_go_before_bundled_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "cached", lambda weights: "VapSR_X4" in weights.url)
    rows = list_models()
    lines = shown(rows, NARROW)
    assert line_of("vapsr-x4", lines).split()[-1] == "downloaded"
    assert line_of("vapsr-s-x4", lines).split()[-1] == "bundled"
    assert any(line.startswith("downloaded: ") for line in lines)
    assert line_of("  vapsr-x4", lines), "what the bundled ones reach is still told"
