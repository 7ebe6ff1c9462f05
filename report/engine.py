"""What an engine is, for the end of every page on one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ..spec import DriftRecord, Manifest
from ..validate.results import DatasetResult, Subject
from .page import signed

NOT_EXECUTED = "not executed"


def execution(subject: Subject) -> str:
    """Whether the engine itself gave the figures; ``executed_on`` is empty where none did."""
    if subject.engine_executed:
        return f"The engine itself was executed, on {subject.executed_on}."
    if not subject.executed_on:
        return f"The {subject.target} engine was not executed, nor its graph elsewhere."
    return (
        f"The {subject.target} engine itself was not executed: the figures are those of its"
        f" graph on {subject.executed_on}."
    )


def identity(
    subject: Subject, results: Sequence[DatasetResult], manifest: Manifest | None
) -> dict[str, Any]:
    """What ``engine.html`` shows: names and values, and the notes of subject and manifest."""
    runtimes = ", ".join(sorted({r.reference_runtime for r in results if r.pictures}))
    entries = [
        ("Network", f"{subject.model}, {subject.variant}, ×{subject.scale}"),
        ("Target", subject.target),
        ("Precision", subject.precision),
        ("INT8 share", f"{subject.int8_mac_share:.1%} of the Conv and MatMul MACs"),
        ("Execution", execution(subject)),
        ("Reference", f"fp32 on {runtimes}" if runtimes else NOT_EXECUTED),
        *(_of_manifest(manifest) if manifest else ()),
    ]
    notes = dict.fromkeys((*subject.notes, *(manifest.notes if manifest else ())))
    return {"entries": entries, "notes": list(notes)}


def _of_manifest(manifest: Manifest) -> Iterator[tuple[str, str]]:
    build, model = manifest.build, manifest.model
    low, mid, high = (
        f"{width}×{height}"
        for height, width in (build.shapes.minimum, build.shapes.optimum, build.shapes.maximum)
    )
    frame = manifest.milliseconds
    yield "Weights", model.weights + (" (never trained)" if model.random_weights else "")
    yield "Built with", f"{build.target} {build.target_version}"
    yield "Built for", manifest.device
    yield "Capabilities", ", ".join(build.capabilities)
    yield "Built at", manifest.created
    yield "Rest precision", build.rest.value
    yield "Left in float", ", ".join(build.float_nodes)
    yield "Islands in float32", ", ".join(build.islands)
    yield "Input sizes", f"{low} to {high}, best at {mid}"
    yield "Time of a frame", "" if frame is None else f"{frame:.1f} ms at {mid}"
    yield "Drift when built", ", ".join(map(_when_built, manifest.drift))
    yield "Engine file", manifest.engine_file
    yield "Engine SHA-256", manifest.engine_sha256
    yield "ONNX SHA-256", build.onnx_sha256
    yield "Weights SHA-256", model.weights_sha256
    yield "Calibration SHA-256", build.calibration_sha256
    yield "Build key", build.digest()


def _when_built(record: DriftRecord) -> str:
    lost = f"{record.dataset} {signed(record.drift)} dB on {record.executed_on}"
    if record.worst_drift is None:
        return lost
    return f"{lost} ({record.worst} {signed(record.worst_drift)} dB)"
