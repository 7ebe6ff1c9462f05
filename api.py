"""The public functions: what the command line does, from Python.

Each takes the options of its command by the same names and checks them; ``import srdeploy`` gives
all of them, and imports what is heavy when one is called.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from .commands import Say
from .errors import OptionError
from .spec import Budget, Compatibility, Precision, ShapeRange, TensorRtOptions

if TYPE_CHECKING:
    from .commands.build_engine import BuildResult
    from .commands.export import ExportResult
    from .commands.run import RunResult
    from .commands.validate import ValidationResult
    from .runtime.session import Session

PathLike = str | os.PathLike[str]

Progress = Callable[[int, int | None, str], None]
"""Takes what is done, what there is in all (None if unknown), and the step or its speed."""

_ON_CPUS = ("onnxruntime", "openvino")


def export_onnx(
    model: str | None = None,
    output: PathLike | None = None,
    *,
    weights: PathLike | None = None,
    scale: int | None = None,
    set: Mapping[str, float] | None = None,  # noqa: A002  the option's name
    random_weights: bool = False,
    opset: int | None = None,
    static: tuple[int, int] | None = None,
    fp16: bool = False,
    inline_ops: bool = False,
    no_pass: Collection[str] = (),
    say: Say | None = None,
) -> ExportResult:
    """Export a network to ONNX and compare it with PyTorch.

    Args:
        model: Family, model or variant, such as ``vapsr``; the default is ``vapsr``, or what
            ``weights`` holds.
        output: File to write; by default the variant's name in the current directory.
        weights: Checkpoint (``.pth``, ``.pt``, ``.safetensors``) of one of the networks.
        scale: Upscaling factor; by default 4, or that of ``weights``.
        set: Hyper-parameters of ``weights`` that its tensors do not tell.
        random_weights: Export an untrained network, for benchmarks.
        opset: ONNX operator set, 18 to 23.
        static: (height, width) in pixels that the file is fixed to; by default any.
        fp16: Compute in fp16; input and output stay float32.
        inline_ops: Write plain ONNX, without custom ops.
        no_pass: Graph passes to leave out.
        say: Takes lines about the work.

    Returns:
        What was written; it can be given to :func:`build_engine`.

    Raises:
        OptionError: Two options contradict each other, or one has no effect.
        SrDeployError: The weights, the network or the ONNX are wrong; nothing is written.
    """
    from .commands.export import ExportOptions, export

    if set and weights is None:
        raise OptionError(
            "[set] changes what the tensors of a checkpoint do not say", "give [weights] too"
        )
    if random_weights and weights is not None:
        raise OptionError(
            "[weights] and [random_weights] contradict each other", "give one of them"
        )
    options = ExportOptions(
        model=model,
        scale=scale,
        weights=_path(weights),
        overrides=dict(set or {}),
        random_weights=random_weights,
        opset=opset,
        static=static,
        fp16=fp16,
        inline_ops=inline_ops,
        without=no_pass,
    )
    return export(options, _path(output), say or _silent)


def build_engine(
    source: PathLike | None = None,
    output: PathLike | None = None,
    *,
    precision: str | Precision | None = None,
    target: str = "auto",
    max_drift: float | tuple[float, float] | Budget | None = None,
    min_int8: float | None = None,
    calib: Sequence[PathLike] | PathLike = (),
    calib_only: bool = False,
    strict: bool = False,
    observer: str | None = None,
    portable: bool = False,
    finetune: Sequence[PathLike] | PathLike = (),
    shapes: Sequence[ShapeRange] = (),
    provider: str | None = None,
    cc: Sequence[str] = (),
    compat: str | Compatibility = Compatibility.SAME_GPU,
    workspace: int = 0,
    optimization_level: int = 3,
    version_compatible: bool = False,
    strip_weights: bool = False,
    tf32: bool = False,
    explain: bool = False,
    say: Say | None = None,
    progress: Progress | None = None,
) -> BuildResult:
    """Build an engine from an exported ONNX, and measure its drift.

    Args:
        source: Exported ONNX, or what :func:`export_onnx` returned; by default the newest in the
            current directory, exported first if there is none.
        output: Engine to write; by default a name made of variant, precision and target.
        precision: ``fp32``, ``fp16``, ``bf16`` or ``int8``; by default the fastest float type of
            the target that is safe.
        target: ``auto`` for the fastest that runs here, or the name of one.
        max_drift: Largest mean loss in dB, or (mean, largest of one picture), which is four times
            the mean by default. int8 leaves layers in float until both are met; its default is
            0.05.
        min_int8: Least share of the Conv and MatMul MACs in int8; 0.8 by default.
        calib: Pictures, videos and folders to calibrate int8 and check the range of fp16 on.
        calib_only: Calibrate on those alone, without the bundled drawings.
        strict: Refuse a folder with a damaged file instead of skipping the file.
        observer: What chooses the ranges of int8: ``percentile`` (default), ``minmax``, ``mse`` or
            ``entropy``.
        portable: int8 that is right on every CPU, with an 8-bit dot product (VNNI) or without.
        finetune: Folders of pictures to train the int8 network on.
        shapes: Input sizes; several are several profiles.
        provider: Execution provider of ONNX Runtime: ``cpu`` (default), ``cuda``, ``tensorrt``.
        cc: Compute capabilities for ``tensorrt-rtx``, such as ``8.9``; by default all.
        compat: Which other GPUs an engine of ``tensorrt`` is to run on.
        workspace: Most scratch memory of a TensorRT layer, MiB; 0 for what is free.
        optimization_level: TensorRT's, 0 to 5.
        version_compatible: Whether later releases of the same TensorRT major version load it.
        strip_weights: Leave the weights out of a TensorRT engine.
        tf32: Let TensorRT round float32 products to TF32.
        explain: Check the kernels of each kind of int8 layers too.
        say: Takes lines about the work.
        progress: Told the steps of calibration and search.

    Raises:
        OptionError: Two options contradict each other, or one has no effect.
        DriftExceeded: The best engine found loses more than ``max_drift``; it is not written.
        SrDeployError: The ONNX or an option is refused; nothing is written.
    """
    wanted = _precision(precision)
    calibration, trained_on = _paths(calib), _paths(finetune)
    _check_int8(
        wanted,
        {
            "calib_only": calib_only,
            "finetune": trained_on,
            "min_int8": min_int8 is not None,
            "observer": observer,
            "portable": portable,
        },
    )
    if calibration and wanted in (Precision.FP32, Precision.BF16):
        raise OptionError(
            f"[calib] has no effect on {wanted}", "give [precision=int8] or [precision=fp16] too"
        )
    for name, given in {"calib_only": calib_only, "strict": strict}.items():
        if given and not calibration:
            raise OptionError(f"[{name}] is about what [calib] names", "give [calib] too")
    if provider and target != "onnxruntime":
        raise OptionError(
            "[provider] chooses an execution provider of ONNX Runtime",
            "give [target=onnxruntime] too",
        )
    if portable and (target.startswith("tensorrt") or provider not in (None, "cpu")):
        raise OptionError("[portable] is about CPUs, and this engine is for a GPU")
    tensorrt = TensorRtOptions(
        workspace,
        optimization_level,
        Compatibility(compat),
        version_compatible,
        strip_weights,
        tf32,
    )
    if target in _ON_CPUS and (cc or tensorrt != TensorRtOptions()):
        raise OptionError(
            f"[target={target}] takes none of [cc], [for], [compat], [workspace], [tf32],"
            " [optimization_level], [version_compatible], [strip_weights]",
            "they are options of TensorRT",
        )
    from .commands.build_engine import BuildOptions
    from .commands.build_engine import build_engine as build
    from .commands.source_model import model_to_build

    say = say or _silent
    options = BuildOptions(
        target=target,
        precision=wanted,
        calibration=calibration,
        budget=_budget(max_drift),
        profiles=tuple(shapes),
        capabilities=tuple(cc),
        portable=portable,
        explain=explain,
        strict=strict,
        calib_only=calib_only,
        finetune=trained_on,
        provider=provider or "",
        tensorrt=tensorrt,
        **_given(min_int8=min_int8, observer=observer),
    )
    told = progress or _unseen
    return build(
        _path(source) or model_to_build(say),
        options,
        _path(output),
        say,
        lambda step, done, total: told(done, total, step),
    )


def open_engine(engine: PathLike, *, say: Say | None = None) -> Session:
    """Open an engine or a bundle; close it, or use it in a ``with`` statement.

    An engine that was built for another machine or version is rebuilt in memory.

    Args:
        engine: The file, or what :func:`build_engine` returned.
        say: Takes lines about the work.

    Returns:
        A session, whose ``upscale`` takes uint8 N×H×W×3 RGB and gives N×(scale·H)×(scale·W)×3.

    Raises:
        SrDeployError: It is missing or damaged, or cannot run here.
    """
    from .commands.opening import open_or_rebuild

    return open_or_rebuild(Path(engine), say or _silent)[0]


def upscale(
    source: PathLike | BinaryIO,
    output: PathLike | BinaryIO | None = None,
    *,
    engine: PathLike | None = None,
    tile: int | None = None,
    codec: str | None = None,
    crf: int | None = None,
    preset: str | None = None,
    while_building: bool = False,
    devices: Sequence[int] = (),
    resume: bool = False,
    allow_truncated: bool = False,
    say: Say | None = None,
    progress: Progress | None = None,
) -> RunResult:
    """Upscale a video, a picture or a folder of pictures.

    Args:
        source: The file or folder; a binary stream gives a video as YUV4MPEG2.
        output: File or folder to write, or a binary stream that takes YUV4MPEG2; by default
            ``STEM_xS`` beside the source.
        engine: Engine or bundle; by default the fastest in the current directory that keeps its
            budget, built if there is none.
        tile: Largest edge in pixels of what is upscaled at once.
        codec: Encoder, such as ``libx264`` (the default, VP9 for WebM) or ``libx265``.
        crf: Constant rate factor, less is better; by default the encoder's.
        preset: Speed of the encoder by its x264 name; ``veryfast`` by default.
        while_building: Where an engine must be built first, start on a quick one.
        devices: Indices of the GPUs to use; by default the first.
        resume: Keep finished parts of a video if the run fails, and continue from them.
        allow_truncated: Upscale what decodes of a video that is cut short.
        say: Takes lines about the work.
        progress: Told the frames or pictures that are done.

    Raises:
        OptionError: An option has no effect on such a source or output.
        SrDeployError: The source, the output or the engine cannot be used.
    """
    from .commands.choose_engine import EngineChoice
    from .commands.run import is_still, run
    from .runtime.video import VideoOptions

    read = Path(source) if isinstance(source, str | os.PathLike) else source
    written = Path(output) if isinstance(output, str | os.PathLike) else output
    encoding = {"codec": codec, "crf": crf, "preset": preset}
    if is_still(read):
        of_videos = encoding | {"resume": resume, "allow_truncated": allow_truncated}
        _refuse(of_videos, "is about videos, and this is a picture or a folder of pictures")
    elif written is not None and not isinstance(written, Path):
        _refuse(encoding, "is about an encoder, and a stream takes raw frames (YUV4MPEG2)")
    options = VideoOptions(
        tile=tile, allow_truncated=allow_truncated, **_given(codec=codec, crf=crf, preset=preset)
    )
    choice = EngineChoice(_path(engine), tuple(devices), while_building, resume)
    return run(read, written, choice, options, say or _silent, progress or _unseen)


def measure_drift(
    engine: PathLike | None = None,
    *,
    data: PathLike,
    onnx: PathLike | None = None,
    say: Say | None = None,
    progress: Progress | None = None,
) -> ValidationResult:
    """Measure what an engine loses against PyTorch fp32.

    Args:
        engine: Engine or bundle. Without it, ``onnx`` is measured, or the newest engine in the
            current directory.
        data: Data sets, or a folder of HR pictures.
        onnx: Exported ONNX to measure; with ``engine``, what it was built from, if that is not
            beside it.
        say: Takes lines about the work.
        progress: Told the pictures that are done.

    Returns:
        Figures by data set and picture; its ``drift`` is that of the data set that loses most, dB.

    Raises:
        SrDeployError: Something is missing or damaged, or does not belong together.
    """
    from .commands.validate import validate

    return validate(_path(engine), _path(onnx), Path(data), say or _silent, progress)


def _check_int8(precision: Precision | None, given: Mapping[str, object]) -> None:
    if precision is not Precision.INT8:
        for name, value in given.items():
            if value:
                raise OptionError(f"[{name}] is about int8", "give [precision=int8] too")


def _refuse(given: Mapping[str, object], why: str) -> None:
    """Refuse the options that were given."""
    for name, value in given.items():
        if value is not None and value is not False:
            raise OptionError(f"[{name}] {why}", "leave it out")


def _precision(given: str | Precision | None) -> Precision | None:
    try:
        return None if given is None else Precision(given)
    except ValueError:
        known = ", ".join(repr(str(one)) for one in Precision)
        raise OptionError(f"there is no precision {given!r}", f"known: {known}") from None


def _budget(given: float | tuple[float, float] | Budget | None) -> Budget | None:
    if given is None or isinstance(given, Budget):
        return given
    try:
        return Budget(*given) if isinstance(given, tuple) else Budget.of_mean(given)
    except ValueError as exc:
        raise OptionError(f"[max_drift] cannot be {given}: {exc}", "such as 0.05") from exc


def _given(**options: Any) -> dict[str, Any]:
    """Those that are not None; the others keep their defaults."""
    return {name: value for name, value in options.items() if value is not None}


def _path(given: PathLike | None) -> Path | None:
    return None if given is None else Path(given)


def _paths(given: Sequence[PathLike] | PathLike) -> tuple[Path, ...]:
    if isinstance(given, str | os.PathLike):
        return (Path(given),)
    return tuple(map(Path, given))


def _silent(line: str) -> None:
    """Takes lines that nobody reads."""


def _unseen(done: int, total: int | None, what: str) -> None:
    """Takes progress that nobody watches."""
