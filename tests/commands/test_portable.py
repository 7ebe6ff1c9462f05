"""int8 for CPUs that add products in pairs, by the machine or by ``--portable``."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from click.testing import CliRunner
from onnx import numpy_helper
from srdeploy import data
from srdeploy.cli import main
from srdeploy.commands.build_engine import BuildOptions, BuildResult, build_engine
from srdeploy.errors import StaleEngine
from srdeploy.export.pair_sums import pairs_fit
from srdeploy.runtime import int8_sums
from srdeploy.runtime.engine import open_engine
from srdeploy.spec import Precision


def built(folder: Path, **options: object) -> BuildResult:
    calibration = [picture.path for picture in data.pictures("calibration")[:1]]
    asked = BuildOptions("onnxruntime", Precision.INT8, calibration, min_int8=1.0, **options)
    return build_engine(folder / "net.onnx", asked, None, lambda _: None)


def fitting(engine: Path) -> list[bool]:
    """Of each int8 weight that is not depthwise, whether its pairs fit."""
    model = onnx.load(engine)
    values = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    codes = {n.output[0]: values[n.input[0]] for n in model.graph.node if n.input[0] in values}
    weights = [codes[n.input[1]] for n in model.graph.node if n.op_type == "Conv"]
    assert all(w.dtype == "int8" for w in weights)
    return [pairs_fit(w, 0) for w in weights if w.shape[1] > 1]


def test_machines_with_and_without_a_dot_product(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(int8_sums, "pairs_saturate", lambda: False)
    ours = built(folder)
    assert not ours.manifest.build.in_pairs
    assert int8_sums.NEEDS_DOT_PRODUCT in ours.manifest.notes
    assert not all(fitting(ours.path))
    monkeypatch.setattr(int8_sums, "pairs_saturate", lambda: True)
    with pytest.raises(StaleEngine, match="8-bit dot product"):
        open_engine(ours.path)
    theirs = built(folder)
    assert theirs.manifest.build.in_pairs
    assert int8_sums.FITS_ALL in theirs.manifest.notes
    assert all(fitting(theirs.path))
    open_engine(theirs.path)[0].close()
    assert 0 <= theirs.manifest.kernel_difference <= theirs.manifest.kernel_bound
    # as good as without, but for rounding
    assert theirs.manifest.drift[0].drift > ours.manifest.drift[0].drift - 0.1


def test_portable_is_what_such_a_machine_builds(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(int8_sums, "pairs_saturate", lambda: False)
    portable = built(folder, portable=True)
    assert portable.manifest.build.in_pairs
    assert all(fitting(portable.path))
    engines = {path.with_suffix("") for path in Path().glob("*.json")}
    assert engines == {portable.path}, "of a target that was named, no float engine beside it"
    monkeypatch.setattr(int8_sums, "pairs_saturate", lambda: True)
    assert built(folder).manifest.build.digest() == portable.manifest.build.digest()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "--portable is about int8: give --int8 too"),
        (("--fp32",), "--portable is about int8: give --int8 too"),
        (("--int8", "--target", "tensorrt-rtx"), "this engine is for a GPU"),
        (("--int8", "--target", "onnxruntime", "--provider", "cuda"), "this engine is for a GPU"),
    ],
)
def test_portable_without_effect_is_an_error(words: tuple[str, ...], said: str) -> None:
    done = CliRunner().invoke(main, ["build-engine", "--portable", *words])
    assert done.exit_code == 2
    assert said in " ".join(done.output.split())
