"""What is said of the bundled weights is true of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from srdeploy.data import bundled_psnr, weights_folder
from srdeploy.models import all_variants
from srdeploy.models.weights.checkpoint import load_network
from srdeploy.train.validation import evaluate
from srdeploy.validate.datasets import find_datasets

FILES = sorted(weights_folder().glob("*.safetensors"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_each_has_a_card_and_its_figures(file: Path) -> None:
    variant = next(v for _, v in all_variants() if v.name == file.stem)
    psnr = bundled_psnr(variant.name)
    card = (file.parent / ("tiny.md" if variant.tiny else f"{variant.name}.md")).read_text()
    line = next(
        line
        for line in card.splitlines()
        if line.startswith((f"| `{variant.name}`", "| these weights"))
    )
    for name in ("Set5", "Set14", "BSD100"):
        assert f"| {psnr[name]:.2f} / " in line, name
    for word in ("licence", "commit", "pictures", "srdeploy train"):
        assert word in card


def test_figures_are_of_weights_that_are_here() -> None:
    named = json.loads((weights_folder() / "measured.json").read_text())
    assert sorted(named) == [file.stem for file in FILES]


@pytest.mark.shared
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_set5_gives_the_stated_psnr(file: Path, shared: Path) -> None:
    network, spec = load_network(file, file.name)
    pairs = [
        (pair.name, *pair.read())
        for found in find_datasets(shared / "data/Set5", spec.scale)
        for pair in found.pairs
    ]
    mean = evaluate(network, pairs, spec.scale)["mean"]
    assert mean == pytest.approx(bundled_psnr(spec.variant)["Set5"], abs=0.006)
