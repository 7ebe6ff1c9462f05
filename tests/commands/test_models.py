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
    return [line.rstrip() for line in file.getvalue().splitlines()]


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


def test_a_narrower_terminal_cuts_nothing() -> None:
    """Its own wrapping is left to break the table."""
    assert shown(list_models(), 40)[:32] == shown(list_models(), PIPE)[:32]


def test_downloaded_weights_go_before_bundled_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "cached", lambda weights: "VapSR_X4" in weights.url)
    rows = list_models()
    lines = shown(rows, NARROW)
    assert line_of("vapsr-x4", lines).split()[-1] == "downloaded"
    assert line_of("vapsr-s-x4", lines).split()[-1] == "bundled"
    assert any(line.startswith("downloaded: ") for line in lines)
    assert line_of("  vapsr-x4", lines), "what the bundled ones reach is still told"
