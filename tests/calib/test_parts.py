"""Graphs in parts: the same tensors, fewer of them at a time."""

from __future__ import annotations

import numpy as np
import pytest
from srdeploy.calib import parts
from srdeploy.calib.calibration_set import make_calibration_set
from srdeploy.calib.channels import ChannelWatcher, convolved_tensors
from srdeploy.calib.observers import MinMaxObserver, PercentileObserver
from srdeploy.calib.pictures import as_input
from srdeploy.calib.ranges import collect_ranges, watch
from srdeploy.errors import ExportError
from srdeploy.export.macs import shapes_at
from srdeploy.export.passes import run_passes
from srdeploy.export.quantise import activations
from srdeploy.export.trace import trace


@pytest.fixture(scope="module")
def calibration(photographs):
    return make_calibration_set(photographs, (24, 40), 9)


def seen_in_parts(model, frames, tensors):
    found = {}
    pieces = parts.split(model, tensors, *frames.shape[2:])
    parts.run_parts(pieces, [{model.graph.input[0].name: frames}], found.__setitem__)
    return pieces, found


@pytest.mark.parametrize("most", [1, 20_000, 200_000])
def test_parts_make_the_tensors_of_the_whole(exported, photographs, most, monkeypatch) -> None:
    frames = as_input(photographs[0].pixels[None, :24, :40])
    wanted = [*activations(exported)[1:], exported.graph.output[0].name]
    _, whole = seen_in_parts(exported, frames, wanted)
    monkeypatch.setattr(parts, "MOST_BYTES", most)
    pieces, found = seen_in_parts(exported, frames, wanted)
    assert set(found) == set(whole) == set(wanted)
    for name in wanted:
        assert np.allclose(found[name], whole[name], rtol=1e-4, atol=1e-5), name
    assert len(pieces) > 1
    for piece in pieces:
        held = sum(found[name].nbytes for name in piece.watched)
        assert held <= most or len(piece.watched) == 1


def test_what_is_not_needed_does_not_run(exported) -> None:
    first = exported.graph.node[0]
    (piece,) = parts.split(exported, [first.output[0]], 16, 16)
    assert piece.made == set(first.output)
    assert parts.split(exported, [], 16, 16) == ()
    with pytest.raises(ExportError, match="nowhere"):
        parts.split(exported, ["nowhere"], 16, 16)


def test_ranges_depend_on_neither_batch_nor_order(exported, calibration) -> None:
    """Crops and whole frames; bit for bit."""
    pictures = calibration.pictures
    assert len({p.shape for p in pictures}) == 3
    shuffled = [pictures[i] for i in np.random.default_rng(0).permutation(len(pictures))]

    def collected(chosen, batch, observer):
        return collect_ranges(exported, chosen, activations(exported), observer, batch=batch)

    for observer in (MinMaxObserver, lambda: PercentileObserver(99)):
        found = [
            collected(chosen, batch, observer)
            for chosen in (pictures, shuffled)
            for batch in (1, 4, 8)
        ]
        assert all(ranges == found[0] for ranges in found)


def test_channels_depend_on_neither_batch_nor_order(exported, calibration) -> None:
    names = convolved_tensors(exported)
    first, second = ChannelWatcher(names), ChannelWatcher(names)
    watch(exported, calibration.pictures, [first], "channels")
    watch(exported, calibration.pictures[::-1], [second], "channels", batch=4)
    once, again = first.statistics(), second.statistics()
    for name in names:
        assert np.array_equal(once[name].maxima, again[name].maxima)
        assert np.allclose(once[name].means, again[name].means, rtol=1e-12)


def test_means_count_every_pixel_once(exported, calibration) -> None:
    watcher = ChannelWatcher(["lr"])
    watch(exported, calibration.pictures, [watcher], "channels")
    found = watcher.statistics()["lr"]
    pixels = np.concatenate([p.reshape(-1, 3) for p in calibration.pictures]) / 255
    assert np.allclose(found.means, pixels.mean(axis=0), atol=1e-6)


def test_every_network_runs_in_parts(traced, monkeypatch) -> None:
    """Custom ops, integers that say sizes, and tensors that skip many layers."""
    model = trace(traced.network, traced.spec)
    run_passes(model)
    frames = traced.pairs[0][0].numpy()[:1]
    wanted = [n for n in activations(model) if n != model.graph.input[0].name]
    shapes = shapes_at(model, *frames.shape[2:])
    _, whole = seen_in_parts(model, frames, wanted)
    assert {n: v.shape for n, v in whole.items()} == {n: shapes[n] for n in whole}
    monkeypatch.setattr(parts, "MOST_BYTES", sum(v.nbytes for v in whole.values()) // 5)
    pieces, found = seen_in_parts(model, frames, wanted)
    assert len(pieces) >= 4
    for name in wanted:
        assert np.allclose(found[name], whole[name], rtol=1e-3, atol=1e-4), name
