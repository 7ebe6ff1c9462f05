"""Kernels against the graph: pictures that tell, and engines that are not delivered."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from srdeploy.commands import build_engine as building
from srdeploy.commands.delivery import best_of, refuse_kernels
from srdeploy.commands.one_engine import Built
from srdeploy.errors import BuildError
from srdeploy.export.pair_sums import fit_pairs
from srdeploy.runtime.session import Frames, Session
from srdeploy.spec import BuildConfig, Manifest, ModelSpec, Precision
from srdeploy.validate.kernel_check import (
    BOUND,
    KernelDifference,
    adversarial_frames,
    kernel_difference,
)


class Repeating(Session):
    """Doubles pixels, with something done to them."""

    scale, target = 2, "here"

    def __init__(self, change=lambda frames: frames) -> None:
        self.change = change

    def _upscale(self, frames: Frames) -> Frames:
        return self.change(frames.repeat(2, 1).repeat(2, 2))


@pytest.mark.parametrize("size", [(48, 64), (16, 16), (9, 31)])
def test_the_frames_bring_sums_to_their_limits(size: tuple[int, int]) -> None:
    frames = adversarial_frames(*size)
    assert frames.shape[1:] == (*size, 3)
    assert frames.dtype == np.uint8
    flats = {tuple(f[0, 0]) for f in frames if (f == f[0, 0]).all()}
    assert flats == {(r, g, b) for r in (0, 255) for g in (0, 255) for b in (0, 255)}
    extremes = [f for f in frames if set(np.unique(f)) == {0, 255}]
    assert len(extremes) > 6
    assert np.array_equal(frames, adversarial_frames(*size)), "the same every time"


def test_a_difference_in_one_kind_of_picture_is_found() -> None:
    frames = adversarial_frames()
    same = Repeating()
    assert kernel_difference([same], Repeating(), same, frames) == KernelDifference(0, BOUND)
    darker = Repeating(lambda f: np.where((f == (0, 0, 255)).all(-1, keepdims=True), 0, f))
    found = kernel_difference([darker], same, same, frames)
    assert found.apart == pytest.approx(255 / 3)
    assert "85.0 code values apart" in found.finding
    off_by_one = Repeating(lambda f: f ^ 1)
    assert kernel_difference([off_by_one], same, same, frames).apart == pytest.approx(1)


def test_a_frame_may_differ_as_much_as_its_graph_does() -> None:
    """Where the network amplifies int8's own rounding; that excuses no other frame."""
    frames = adversarial_frames()
    same = Repeating()
    noisy = Repeating(lambda f: np.where(len(np.unique(f)) > 3, f // 2, f))  # the ramp alone
    assert kernel_difference([noisy], same, noisy, frames).finding == ""
    assert kernel_difference([noisy], same, same, frames).finding
    both = Repeating(lambda f: np.where((f == 255).all(-1, keepdims=True), 200, noisy.change(f)))
    assert kernel_difference([both], same, noisy, frames).finding


class OneLayer(Session):
    """A layer of 3×3 pixels and three colours in int8, its products added as a CPU adds them.

    With ``pairs`` as ``vpmaddubsw`` does: two products of 8 bits to one sum of 16, which saturates.
    """

    scale, target = 1, "numpy"

    def __init__(self, codes: np.ndarray, pairs: bool) -> None:
        self.codes, self.pairs = codes.transpose(0, 2, 3, 1).reshape(3, -1).astype(int), pairs

    def _upscale(self, frames: Frames) -> Frames:
        padded = np.pad(frames.astype(int), ((0, 0), (1, 1), (1, 1), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
        taps = windows.transpose(0, 1, 2, 4, 5, 3)  # a tap's channels are neighbours
        inputs = taps.reshape(*frames.shape[:3], 1, -1)
        products = inputs * self.codes
        products = np.pad(products, [(0, 0)] * 4 + [(0, products.shape[-1] % 2)])
        sums = products.reshape(*products.shape[:-1], -1, 2).sum(-1)
        if self.pairs:
            sums = sums.clip(-32768, 32767)
        return np.clip(sums.sum(-1) / 1200 + 128, 0, 255).astype(np.uint8)


def test_pairs_that_saturate_are_found_and_fitted_weights_are_not() -> None:
    """Whatever CPU the test runs on: the sums of one without an 8-bit dot product, in numpy."""
    drawn = np.random.default_rng(3).normal(0, 70, (3, 3, 3, 3))
    codes = np.clip(np.rint(drawn), -127, 127).astype(np.int8)
    frames = adversarial_frames()
    for weights, right in ((codes, False), (fit_pairs(codes, 0), True)):
        exact, there = (OneLayer(weights, pairs) for pairs in (False, True))
        found = kernel_difference([there], exact, exact, frames)
        assert (found.finding == "") == right, found
        assert (found.apart == 0) == right


def test_what_is_beyond_the_bound() -> None:
    assert KernelDifference(BOUND, BOUND).finding == ""
    assert "8.9 code values apart" in KernelDifference(8.9, BOUND).finding


def engine(name: str, milliseconds: float, difference: float | None) -> Built:
    config = BuildConfig("", name, "1", Precision.INT8)
    spec = ModelSpec("vapsr", "v", 4, 8)
    manifest = Manifest(
        config,
        spec,
        "",
        name,
        "",
        milliseconds=milliseconds,
        kernel_difference=difference,
        kernel_bound=BOUND,
    )
    return Built(b"", manifest, (), (), None)


def test_engines_whose_kernels_differ_are_not_delivered() -> None:
    fast, right, unknown = engine("a", 5, 8.9), engine("b", 9, 0.3), engine("c", 7, None)
    assert best_of([fast, right], None) is right
    assert best_of([fast, right, unknown], None) is unknown
    assert best_of([fast], None) is fast
    with pytest.raises(BuildError, match="the a engine is not delivered: its kernels do not"):
        refuse_kernels(fast)
    refuse_kernels(right)


def test_a_build_with_such_kernels_leaves_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if this CPU saturated the sums of every frame."""
    from srdeploy.commands import one_engine

    monkeypatch.setattr(one_engine, "kernel_difference", lambda *_: KernelDifference(40.0, BOUND))
    options = building.BuildOptions("onnxruntime", Precision.INT8, min_int8=1.0)
    with pytest.raises(BuildError, match=r"40\.0 code values apart"):
        building.build_engine(folder / "net.onnx", options, None, lambda _: None)
    assert [path.name for path in folder.iterdir()] == ["net.onnx"]
