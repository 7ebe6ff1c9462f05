"""``srdeploy validate``: the drift of an engine or an ONNX file against PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx

from .. import data
from ..errors import EngineError, ModelFileError, SrDeployError
from ..files import digest_file
from ..runtime.model_file import read_model
from ..runtime.targets.onnxruntime import ReferenceSession
from ..spec import Manifest, ModelSpec, Precision
from ..validate.datasets import find_datasets
from ..validate.drift import DatasetResult, Progress, Subject, measure
from ..validate.reference import open_reference
from . import Say
from .calibration import refuse_calibrated
from .newest import newest_engine, newest_model
from .opening import manifest_of
from .stand_in import open_or_stand_in


@dataclass(frozen=True)
class ValidationResult:
    """Figures of a validation, and of what they are."""

    subject: Subject
    datasets: tuple[DatasetResult, ...]
    manifest: Manifest | None

    @property
    def drift(self) -> float:
        """Mean drift of the data set that loses most, dB."""
        return min(dataset.drift for dataset in self.datasets)


def validate(
    engine: Path | None, model: Path | None, folder: Path, say: Say, progress: Progress | None
) -> ValidationResult:
    """Measure an engine, or an exported ONNX, on the data sets in ``folder``.

    Args:
        engine: An engine or bundle, whose graph is executed elsewhere where it cannot run here;
            None with ``model`` to measure the ONNX itself in ONNX Runtime.
        model: An exported ONNX: what is measured, or with ``engine`` its reference. With
            neither, the newest engine of the current directory, else the newest ONNX.
        folder: Data sets, see :func:`~srdeploy.validate.datasets.find_datasets`.

    Raises:
        SrDeployError: Something is missing, damaged, or does not belong together.
    """
    if engine is None and model is None:
        engine = _newest_engine(say)
        model = None if engine else newest_model(Path())
        if engine is None and model is None:
            raise SrDeployError(
                "there is no engine and no exported ONNX in this directory",
                "srdeploy export and srdeploy build-engine make them; or give --engine or --onnx",
            )
        say(f"validating {engine or model}, the newest in this directory")
    if engine is None:
        assert model is not None  # one of them was given or found
        return _validate_model(model, folder, progress)
    manifest = manifest_of(engine)
    graph, spec = reference_model(engine, manifest, model)
    datasets = find_datasets(folder, spec.scale)
    refuse_calibrated(manifest, datasets)
    session, manifest, left_out = open_or_stand_in(engine, say)
    with session, open_reference(graph, spec) as reference:
        results = measure(session, reference, datasets, spec.scale, progress)
        notes = (*left_out, *session.notes)
        for note in notes:
            say(f"note: {note}")
        return ValidationResult(Subject.of(manifest, session, notes), results, manifest)


def summary_of(dataset: DatasetResult) -> str:
    """The figures of a data set in a line."""
    worst = dataset.worst
    assert worst is not None  # every data set has a picture
    return (
        f"{dataset.name}: PSNR {dataset.mean('psnr_engine'):.3f} dB,"
        f" {dataset.reference_runtime} fp32 {dataset.mean('psnr_reference'):.3f},"
        f" drift {dataset.drift:+z.4f} dB, worst {worst.name} {worst.drift:+z.4f} dB,"
        f" fidelity {dataset.mean('fidelity'):.1f} dB, SSIM {dataset.mean('ssim_engine'):.4f}"
    )


def _newest_engine(say: Say) -> Path | None:
    """The newest engine here that runs on this machine; where none does, the newest of all."""
    runnable, newest = newest_engine(Path()), newest_engine(Path(), runnable=False)
    if runnable and newest and newest != runnable:
        say(f"passed over, as it cannot run here: {newest}, which is newer")
    return runnable or newest


def _validate_model(path: Path, folder: Path, progress: Progress | None) -> ValidationResult:
    model, spec = read_model(path)
    datasets = find_datasets(folder, spec.scale)
    with ReferenceSession(model, spec.scale) as session, open_reference(model, spec) as reference:
        results = measure(session, reference, datasets, spec.scale, progress)
    subject = Subject(
        model=spec.architecture,
        variant=spec.variant,
        scale=spec.scale,
        target=session.target,
        precision=Precision.FP32.value,
        executed_on=session.target,
        engine_executed=True,
    )
    return ValidationResult(subject, results, None)


def reference_model(
    engine: Path, manifest: Manifest, given: Path | None
) -> tuple[onnx.ModelProto, ModelSpec]:
    """The exported ONNX that an engine was built from.

    Raises:
        EngineError: It is not here, or the one given is another.
    """
    wanted = manifest.build.onnx_sha256
    if given is not None:
        if digest_file(given) != wanted:
            raise EngineError(
                f"{engine} was not built from {given}",
                "name the ONNX that build-engine was given",
            )
        return read_model(given)
    bundle = data.bundled_onnx(manifest.model.variant)
    nearby = [*engine.parent.glob("*.onnx"), *Path().glob("*.onnx"), *([bundle] if bundle else [])]
    for path in nearby:
        if path.is_file() and digest_file(path) == wanted:
            return read_model(path)
    raise ModelFileError(
        f"the ONNX that {engine} was built from is not beside it",
        "name it with --onnx, so that its drift can be measured",
    )
