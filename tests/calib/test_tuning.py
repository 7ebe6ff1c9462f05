"""Tuning windows: which ones, and the PSNR on them."""

from __future__ import annotations

import numpy as np
import pytest
from srdeploy.calib.pictures import NamedPicture
from srdeploy.calib.tuning import TYPICAL, Tuning, mean_psnr, tuning_pairs
from srdeploy.errors import DatasetError
from srdeploy.runtime.targets.onnxruntime import ReferenceSession
from srdeploy.validate.metrics import luma, psnr
from srdeploy.validate.resize import shrink

SCALE = 2


@pytest.fixture(scope="module")
def pairs(photographs):
    return tuning_pairs(photographs, SCALE, (20, 30), 4)


def test_windows_come_in_turn_and_of_typical_texture() -> None:
    rng = np.random.default_rng(1)
    columns = [rng.integers(128 - a, 129 + a, (64, 32, 3)) for a in (120, 60, 20, 5, 1)]
    graded = np.concatenate(columns, axis=1).astype(np.uint8)
    noise = rng.integers(0, 256, (64, 96, 3)).astype(np.uint8)
    pictures = [NamedPicture("graded", graded), NamedPicture("noise", noise)]
    found = tuning_pairs(pictures, SCALE, (32, 16), 3)
    assert [p.lr.shape for p in found] == [(32, 16, 3)] * 3
    # of windows 8 columns apart, falling in texture, the first one lies at TYPICAL
    lr = shrink(graded, SCALE)
    windows = [lr[:, x : x + 16] for x in range(0, 65, 8)]
    assert np.array_equal(found[0].lr, windows[round(TYPICAL * 8)])
    assert np.array_equal(found[0].hr, graded[:, round(TYPICAL * 8) * 16 :][:, :32])
    assert any(np.array_equal(found[1].hr, noise[:, x : x + 32]) for x in range(0, 65, 16))
    assert any(np.array_equal(found[2].lr, windows[x]) for x in (5, 7))


def test_small_and_odd_tuning_pictures() -> None:
    odd = NamedPicture("odd", np.zeros((49, 71, 3), np.uint8))
    (pair,) = tuning_pairs([odd], SCALE, (64, 96), 6)
    assert pair.lr.shape == (24, 35, 3)
    assert pair.hr.shape == (48, 70, 3)
    with pytest.raises(DatasetError, match="none of 1 tuning pictures"):
        tuning_pairs([NamedPicture("tiny", np.zeros((31, 200, 3), np.uint8))], SCALE)
    with pytest.raises(DatasetError, match="none of 0"):
        tuning_pairs([], SCALE)


def test_psnr_is_that_of_the_reference_session(exported, pairs) -> None:
    session = ReferenceSession(exported, SCALE)
    expected = [
        psnr(
            luma(session.upscale(pair.lr[None])[0])[SCALE:-SCALE, SCALE:-SCALE],
            luma(pair.hr)[SCALE:-SCALE, SCALE:-SCALE],
        )
        for pair in pairs
    ]
    assert mean_psnr(exported, pairs, SCALE) == pytest.approx(np.mean(expected), abs=1e-3)
    by_window = Tuning(pairs, SCALE).psnr_of(exported)
    assert isinstance(by_window, list)
    assert by_window == pytest.approx(expected, abs=1e-3)
    with pytest.raises(DatasetError, match="no tuning pictures"):
        mean_psnr(exported, (), SCALE)


@pytest.mark.parametrize(
    ("found", "tail", "drift"),
    [
        ([29.8, 29.8, 29.8, 29.8], 4, -0.2),  # all lose alike: the mean
        ([30.0, 30.0, 30.0, 28.0], 4, -0.5),  # one loses all: it is the mean and the tail
        ([30.5, 30.5, 30.5, 29.0], 4, -0.25),  # a gain on average hides no loss
        ([30.5, 30.5, 30.5, 29.0], 2, -0.5),
        ([29.9, 29.9, 29.9, 29.5], 4, -0.2),
        ([30.1, 30.2, 30.3, 30.4], 4, 0.025),  # a gain counts no more than the worst window's
    ],
)
def test_drift_is_of_the_mean_or_of_the_worst_window(pairs, found, tail, drift) -> None:
    assert Tuning(pairs, SCALE, tail).drift(found, [30.0] * 4) == pytest.approx(drift)


def test_the_digest_sees_every_pixel(pairs) -> None:
    other = pairs[0].hr.copy()
    other[0, 0, 0] ^= 1
    changed = [type(pairs[0])(pairs[0].lr, other), *pairs[1:]]
    assert Tuning(pairs, SCALE).digest == Tuning(list(pairs), SCALE).digest
    assert Tuning(pairs, SCALE).digest != Tuning(changed, SCALE).digest
