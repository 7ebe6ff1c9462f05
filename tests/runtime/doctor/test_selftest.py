"""The engine of one layer: what it computes, and that wrong pixels are noticed."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from srdeploy.errors import TargetUnavailable
from srdeploy.runtime.doctor import selftest as one_engine
from srdeploy.runtime.doctor.selftest import expected, one_layer, selftest


class TestSelftest:
    @settings(max_examples=10)
    @given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 9))
    def test_numpy_computes_what_the_graph_says(self, seed: int, height: int, width: int) -> None:
        rng = np.random.default_rng(seed)
        weights = rng.normal(0, 0.3, (12, 3, 3, 3)).astype(np.float32)
        frames = rng.integers(0, 256, (2, height, width, 3), dtype=np.uint8)
        session = ort.InferenceSession(one_layer(weights), providers=["CPUExecutionProvider"])
        (upscaled,) = session.run(None, {"frames": frames})
        assert upscaled.dtype == np.uint8
        assert np.abs(upscaled.astype(int) - expected(frames, weights)).max() <= 1

    def test_wrong_pixels_are_noticed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert "built and run" in selftest("onnxruntime")
        right = expected
        monkeypatch.setattr(one_engine, "expected", lambda *a: right(*a)[:, ::-1])
        with pytest.raises(ArithmeticError, match=r"off by up to \d+ of 255"):
            selftest("onnxruntime")

    def test_a_provider_that_is_not_here(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("srdeploy.runtime.gpu_facts.DRIVER_LIBRARY", "/absent")
        with pytest.raises(TargetUnavailable, match="cuda provider"):
            selftest("onnxruntime", "cuda")
