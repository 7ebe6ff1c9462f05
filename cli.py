"""The command line: parses, calls the public API (api.py) or a function of commands/, prints.

The only file that exits. Whatever is heavy is imported inside a command, so that
``srdeploy --help`` answers at once.
"""

from __future__ import annotations

import errno
import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from . import __version__
from .commands.options import budget, generations, indices, numbers, profiles, size, words
from .console import STANDARD, Output, check_standard_output, prepare_streams
from .errors import Interrupted, OptionError, SrDeployError
from .interruption import ignore_signals, interruptible
from .spec import Budget, Compatibility, Precision
from .usage import Command, FilePath, OutputPath, check_outputs, only_one

INTERRUPTED = 130
DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS}
NOTHING_LEFT = ("interrupted; nothing half-written was left", "")
FLOATS_AND_INT8 = ("fp32", "fp16", "bf16", "int8")
OF_AN_ENGINE = {
    **{
        f"--{name}": "An engine has its precision: srdeploy build-engine {}"
        for name in FLOATS_AND_INT8
    },
    "--target": "An engine has its target: srdeploy build-engine --target NAME",
    "--model": "An engine has its network: srdeploy export --model NAME, then build-engine",
}
"""What people try on a command that takes an engine, and what to do instead."""


def command(
    name: str, parent: click.Group | None = None, **described: Any
) -> Callable[[Callable[..., None]], click.Command]:
    """Register a command with the common options and the one place where errors are printed.

    Args:
        name: What it is called with.
        parent: The group that it is in, None for the top.
        described: Further arguments of :class:`~srdeploy.usage.Command`, such as ``examples``.
    """

    def decorate(function: Callable[..., None]) -> click.Command:
        @functools.wraps(function)
        def guarded(quiet: bool, verbose: bool, json_file: Path | None, **options: Any) -> None:
            output = Output(quiet, verbose, json_file)
            try:
                with interruptible():
                    check_outputs(click.get_current_context())
                    function(output, **options)
            except OptionError as exc:
                raise click.UsageError(exc.as_typed(), click.get_current_context()) from exc
            except SrDeployError as exc:
                _fail(output, exc.message, exc.hint, exc.exit_code)
            except KeyboardInterrupt as exc:
                ignore_signals()
                told = (exc.message, exc.hint) if isinstance(exc, Interrupted) else NOTHING_LEFT
                _fail(output, *told, INTERRUPTED)
            except (click.ClickException, click.exceptions.Exit):
                raise
            except MemoryError:
                _fail(output, "out of memory", "try a smaller --tile", 1)
            except Exception as exc:  # a fault of srdeploy, not of the user
                if isinstance(exc, OSError) and exc.errno == errno.EPIPE:
                    raise  # whoever read the output, such as head, has enough: click ends quietly
                if isinstance(exc, OSError) and exc.errno in DISK_ERRORS:
                    _fail(output, f"{exc.strerror}", "check the disk that is written to", 1)
                kind = type(exc).__name__
                hint = "this is a fault in srdeploy; please report it with what --verbose prints"
                _fail(output, f"{kind}: {exc}", hint, 1)

        for option in (
            click.option(
                "--json",
                "json_file",
                type=OutputPath(),
                metavar="FILE",
                help="Write the result as JSON; '-' for standard output.",
            ),
            click.option("--verbose", is_flag=True, help="Say more; show the trace of an error."),
            click.option("--quiet", is_flag=True, help="Print errors only."),
        ):
            guarded = option(guarded)
        return (parent or main).command(name, cls=Command, **described)(guarded)

    return decorate


def _fail(output: Output, message: str, hint: str, code: int) -> None:
    output.fail(message, hint)
    sys.exit(code)


class Program(click.Group):
    """The group of all commands."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run a command line."""
        prepare_streams()
        return super().main(*args, **kwargs)


@click.group(
    cls=Program,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="srdeploy")
def main() -> None:
    """Deploy super-resolution networks at a known quality.

    \b
    srdeploy export --model vapsr     checkpoint to ONNX, verified against PyTorch
    srdeploy build-engine --int8      ONNX to a calibrated engine, drift measured
    srdeploy run video.mp4            video to upscaled video
    """


@main.group("engines")
def engines_group() -> None:
    """The engine store: list, check, bound, move engines."""


def _read_by(read: Callable[[Any], Any]) -> Callable[[click.Context, click.Parameter, Any], Any]:
    """A callback that reads a value as ``read`` does; a wrong one is a usage error."""

    def callback(context: click.Context, parameter: click.Parameter, value: Any) -> Any:
        if value is None:
            return None
        try:
            return read(value)
        except ValueError as exc:
            raise click.BadParameter(str(exc), context, parameter) from exc

    return callback


@command(
    "models",
    examples=[
        ("srdeploy models", "all networks, and whose weights are here"),
        ("srdeploy models --json -", "the same for a script"),
    ],
)
def models_command(output: Output) -> None:
    """Show the networks, what they cost, and whose weights are here."""
    from .commands.models import format_models, list_models

    rows = list_models()
    output.show(format_models(rows))
    output.result({"models": rows})


@command(
    "fetch",
    examples=[
        ("srdeploy fetch vapsr-x4", "the authors' VapSR x4"),
        ("srdeploy fetch vapsr-x2 vapsr-x3", "several; what is here already is kept"),
    ],
)
@click.argument("names", nargs=-1, required=True)
def fetch_command(output: Output, names: tuple[str, ...]) -> None:
    """Download official weights to the cache, such as vapsr-x4."""
    from .commands.models import fetch_weights

    with output.progress("bytes") as update:
        paths = fetch_weights(
            names, output.say, lambda done, total: update(done, total or None, "")
        )
    output.result({"files": [str(path) for path in paths]})


@command(
    "train",
    examples=[
        ("srdeploy train --model vapsr-s --data DIV2K", "from scratch, x4; Ctrl-C saves"),
        ("srdeploy train --model vapsr-tiny --data DIV2K --quick", "a minute, as a trial"),
        ("srdeploy train --model hat --data DIV2K --weights HAT.pth", "from a checkpoint"),
    ],
)
@click.option("--model", required=True, help="Model to train, such as vapsr-s.")
@click.option("--scale", type=int, default=4, show_default=True)
@click.option(
    "--recipe",
    default="default",
    show_default=True,
    metavar="NAME|FILE",
    help="How: a paper's, such as vapsr, hat-pretrain, hat-finetune, han, enlcn, attentionsr, or"
    " a .toml file. The options below take the place of its values.",
)
@click.option(
    "--data",
    "folders",
    multiple=True,
    required=True,
    type=FilePath(),
    help="Folder of training pictures and videos, or one such file; repeatable.",
)
@click.option(
    "--degradation",
    type=click.Choice(["bicubic", "real"]),
    help="How LR is made: as the literature does, or with blur, noise, JPEG and H.264."
    "  [default: the recipe's, bicubic]",
)
@click.option(
    "--validation",
    type=FilePath(),
    help="Data sets for the PSNR; without it the bundled proof pictures.",
)
@click.option(
    "-o",
    "--output",
    "folder",
    type=OutputPath(folder=True, makes_parents=True),
    help="Folder of the run, resumed if it exists.  [default: runs/VARIANT]",
)
@click.option("--steps", type=click.IntRange(1), help="Length of the run.")
@click.option("--batch", type=click.IntRange(1), help="Patches a step.")
@click.option("--patch", type=click.IntRange(8), help="Edge of an LR patch in pixels.")
@click.option("--rate", type=click.FloatRange(0, 1, min_open=True), help="Learning rate.")
@click.option("--decay", type=click.IntRange(1), help="Steps over which the rate falls to 0.")
@click.option(
    "--patience",
    type=click.IntRange(0),
    help="End after so many validations without a better PSNR; 0 for never.",
)
@click.option("--bf16/--no-bf16", default=None, help="Compute in bfloat16.")
@click.option("--compile/--no-compile", "compiled", default=None, help="Compile the network first.")
@click.option(
    "--devices",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="GPUs, or processes on a CPU, that share each batch.",
)
@click.option("--threads", type=click.IntRange(1), help="CPU threads, of each process.")
@click.option(
    "--weights",
    type=FilePath(),
    help="Checkpoint to start from, of this network, another scale of it, or one with the same"
    " trunk; from scratch without it.",
)
@click.option(
    "--teacher",
    type=FilePath(),
    help="Checkpoint of a larger network of the same scale to learn from besides.",
)
@click.option(
    "--teacher-share",
    type=click.FloatRange(0, 1, min_open=True),
    help="Share of the loss that is taken against the teacher.  [default: 0.5]",
)
@click.option("--quick", is_flag=True, help="A run of minutes, to see that all works.")
def train_command(
    output: Output, bf16: bool | None, compiled: bool | None, teacher: Path | None, **options: Any
) -> None:
    """Train a network; an interrupted run is resumed."""
    if options["teacher_share"] is not None and teacher is None:
        raise click.UsageError("--teacher-share says how much of --teacher, which is not given")
    from .commands.train import train_model

    precision = None if bf16 is None else "bf16" if bf16 else "32"
    result = train_model(
        say=output.say, teacher=teacher, precision=precision, compile=compiled, **options
    )
    output.say(f"{'PSNR, dB':<28}{result['variant']:>16}{'bicubic':>10}")
    for name, value in result["psnr"].items():
        output.say(f"{name:<28}{value:16.3f}{result['bicubic'][name]:10.3f}")
    output.say(f"wrote {result['weights']}, {result['log']} and {result['page']}")
    output.result(result)


@command(
    "export",
    examples=[
        ("srdeploy export --model vapsr", "the best VapSR x4 whose weights are here"),
        ("srdeploy export --weights net.pth", "any checkpoint: its tensors say what it is"),
        ("srdeploy export --model vapsr-s --scale 2 -o x2.onnx", "another scale, another name"),
    ],
    instead={"--target": "That is an option of build-engine, which comes next."}
    | dict.fromkeys(("--int8", "--bf16"), "Export, then: srdeploy build-engine NETWORK.onnx {}"),
)
@click.option("--model", help="Family, model or variant, such as vapsr, vapsr-s, vapsr-s-x4.")
@click.option("--scale", type=int, help="Upscaling factor.  [default: 4]")
@click.option(
    "--weights",
    type=FilePath(),
    help="Checkpoint; alone, its tensors say which network it is.",
)
@click.option(
    "--set",
    multiple=True,
    metavar="NAME=VALUE",
    callback=_read_by(numbers),
    help="A number of --weights' network that no tensor holds, such as conv_scale=0.01.",
)
@click.option("-o", "--output", "path", type=OutputPath(), help="ONNX file to write.")
@click.option("--opset", type=int, help="ONNX operator set, 18 to 23.  [default: 20]")
@click.option("--static", metavar="HxW", callback=_read_by(size), help="Fix the input size.")
@click.option("--fp16", is_flag=True, help="Compute in fp16; input and output stay float32.")
@click.option("--inline-ops", is_flag=True, help="Write plain ONNX, without custom ops.")
@click.option("--random-weights", is_flag=True, help="An untrained network, for benchmarks.")
@click.option(
    "--no-pass",
    multiple=True,
    metavar="NAME",
    help="Leave a graph pass out, such as channel-layernorm; repeatable.",
)
def export_command(output: Output, path: Path | None, **options: Any) -> None:
    """Export a network to ONNX, verified against PyTorch.

    The file takes pictures of any size, unless --static fixes it.
    """
    from .api import export_onnx

    result = export_onnx(output=path, say=output.say, **options)
    worst = max(result.errors.values())
    passes = ", ".join(f"{name} ({n} nodes)" for name, n in result.passes.items()) or "none"
    output.say(f"graph passes: {passes}")
    output.say(f"verified against PyTorch at {len(result.errors)} sizes: largest error {worst:.1e}")
    output.say(f"wrote {result.path}")
    output.result(
        {
            "path": str(result.path),
            "variant": result.spec.variant,
            "scale": result.spec.scale,
            "weights": result.spec.weights,
            "random_weights": result.spec.random_weights,
            "errors": result.errors,
            "passes": result.passes,
        }
    )


@command(
    "build-engine",
    examples=[
        ("srdeploy build-engine --int8", "the newest ONNX here, int8, for this machine"),
        ("srdeploy build-engine net.onnx --int8 --max-drift 0.05", "or exit code 3 beyond 0.05 dB"),
        ("srdeploy build-engine --int8 --calib clip.mp4", "calibrated on frames of a video"),
        ("srdeploy build-engine --target tensorrt-rtx --for rtx40", "for another machine's GPU"),
    ],
    one_input="One ONNX makes one engine: run the command once for each.",
    instead={"--model": "Export first: srdeploy export --model NAME"},
)
@click.argument("source", required=False, type=FilePath())
@click.option(
    "--target",
    default="auto",
    show_default=True,
    help="auto, onnxruntime, openvino, tensorrt or tensorrt-rtx.",
)
@click.option("--fp32", is_flag=True, help="Compute in float32, as PyTorch does.")
@click.option("--fp16", is_flag=True, help="Compute in float16; layers that need it stay in fp32.")
@click.option("--bf16", is_flag=True, help="Compute in bfloat16, on CPUs and GPUs that have it.")
@click.option(
    "--int8",
    is_flag=True,
    help="Compute in 8 bits, calibrated. Without any of the four: the fastest float type that is"
    " safe.",
)
@click.option(
    "--calib",
    multiple=True,
    type=FilePath(),
    help="Pictures, videos and folders to calibrate int8 and check fp16 on; repeatable.",
)
@click.option(
    "--calib-only",
    is_flag=True,
    help="Calibrate int8 on --calib alone, without the bundled drawings that reach what photographs"
    " rarely do.",
)
@click.option(
    "--strict",
    is_flag=True,
    help="Refuse a folder to calibrate on that holds a damaged file, instead of skipping the file.",
)
@click.option(
    "--max-drift",
    callback=_read_by(budget),
    metavar="DB[,DB]",
    help="Budget: int8 leaves layers in float until it is met; exit code 3 where it is not. The"
    " second number is what a single picture may lose.  [default: 4 times the first]",
)
@click.option(
    "--min-int8",
    type=click.FloatRange(0, 1),
    metavar="SHARE",
    help="Least share of the Conv and MatMul MACs that int8 keeps in int8.  [default: 0.8]",
)
@click.option(
    "--portable",
    is_flag=True,
    help="int8 for every CPU, with an 8-bit dot product (VNNI) or without, and not this one alone.",
)
@click.option(
    "--observer",
    type=click.Choice(["percentile", "minmax", "mse", "entropy"]),
    help="What chooses the ranges of int8 activations.  [default: percentile]",
)
@click.option(
    "--finetune",
    multiple=True,
    metavar="DIR",
    type=FilePath(),
    help="Folder of pictures: train the int8 network on them, at least 98 % in int8; repeatable.",
)
@click.option(
    "--shapes",
    callback=_read_by(profiles),
    metavar="MIN,OPT,MAX",
    multiple=True,
    help="Input sizes, each HxW or NxHxW; one alone for a static engine; repeatable for several"
    " profiles.  [default: 16x16,180x320,1080x1920]",
)
@click.option(
    "--cc",
    callback=_read_by(words),
    metavar="LIST",
    default="",
    help="Compute capabilities for tensorrt-rtx, such as 8.6,8.9.  [default: all]",
)
@click.option(
    "--for",
    "for_",
    callback=_read_by(generations),
    metavar="LIST",
    default="",
    help="GPUs for tensorrt-rtx by generation: rtx20, rtx30, rtx40, rtx50.",
)
@click.option(
    "--compat",
    type=click.Choice([kind.value for kind in Compatibility]),
    default=Compatibility.SAME_GPU.value,
    show_default=True,
    help="Which other GPUs an engine of tensorrt is to run on.",
)
@click.option(
    "--workspace",
    type=click.IntRange(0),
    metavar="MIB",
    default=0,
    help="Most scratch memory of a TensorRT layer.  [default: what is free]",
)
@click.option(
    "--optimization-level",
    type=click.IntRange(0, 5),
    default=3,
    show_default=True,
    help="TensorRT's: longer builds for faster engines.",
)
@click.option(
    "--version-compatible", is_flag=True, help="An engine that later TensorRT 10 or 11 run too."
)
@click.option(
    "--strip-weights",
    is_flag=True,
    help="Leave the weights out; they come back from the graph in the engine store.",
)
@click.option("--tf32", is_flag=True, help="Let TensorRT round float32 products to TF32.")
@click.option("--explain", is_flag=True, help="Print every layer: precision as built, and time.")
@click.option(
    "--provider",
    type=click.Choice(["cpu", "cuda", "tensorrt"]),
    help="Execution provider of --target onnxruntime.  [default: cpu]",
)
@click.option("-o", "--output", "path", type=OutputPath(), help="Engine to write.")
def build_engine_command(
    output: Output,
    source: Path | None,
    path: Path | None,
    **options: Any,
) -> None:
    """Build an engine from an exported ONNX and measure its drift.

    Without SOURCE the newest exported ONNX of the current directory is taken; where there is
    none, one is exported first.
    """
    options["precision"] = only_one({name: options.pop(name) for name in FLOATS_AND_INT8})
    # the same one named twice is one
    options["cc"] = tuple(dict.fromkeys((*options["cc"], *options.pop("for_"))))
    from .api import build_engine
    from .commands.explain import show_kernels, show_layers

    with output.progress() as update:
        result = build_engine(source, path, say=output.say, progress=update, **options)
    manifest = result.manifest
    for record in manifest.drift:
        output.say(
            f"drift on {record.dataset}: {record.drift:+z.3f} dB (PSNR {record.psnr_engine:.3f},"
            f" {record.reference_runtime} fp32 {record.psnr_reference:.3f}), worst {record.worst}"
            f" {record.worst_drift:+z.3f} dB; fidelity {record.fidelity:.1f} dB,"
            f" executed on {record.executed_on}"
        )
    if manifest.build.precision is Precision.INT8:
        output.say(f"{manifest.int8_mac_share:.0%} of the Conv and MatMul MACs are int8")
    if manifest.kernel_difference is not None:
        output.say(
            f"its kernels are within {manifest.kernel_difference:.1f} code values of its graph"
        )
    show_kernels(manifest.kernel_groups, output.show)
    for note in manifest.notes:
        output.say(f"note: {note}")
    show_layers(result.layers, options["explain"], output.say, output.show)
    output.say(f"wrote {result.path}, its manifest and {' and '.join(result.beside)}")
    output.result(result.document())


@command(
    "run",
    examples=[
        ("srdeploy run video.mp4", "video_x4.mp4, with what is missing made first"),
        ("srdeploy run film.mkv -o large.mkv --crf 16 --preset slow --resume", "can be cut off"),
        ("srdeploy run photos", "a folder of pictures"),
        (
            "ffmpeg -i in.mp4 -f yuv4mpegpipe - | srdeploy run - | ffmpeg -i - out.mp4",
            "as one of several filters",
        ),
    ],
    one_input='For several videos: for f in *.mp4; do srdeploy run "$f"; done',
    instead=OF_AN_ENGINE,
)
@click.argument("source", metavar="INPUT", type=FilePath())
@click.option(
    "-o",
    "--output",
    "path",
    type=OutputPath(folder=True),
    help="File or folder to write.  [default: INPUT_x4 beside it]",
)
@click.option(
    "--engine",
    type=FilePath(),
    help="Engine or bundle to use.  [default: the best here, built if there is none]",
)
@click.option("--tile", type=click.IntRange(16), help="Cut frames into tiles of this edge.")
@click.option("--codec", help="Encoder, such as libx264 or libx265.")
@click.option("--crf", type=click.IntRange(0, 63), help="Quality of the encoder; less is better.")
@click.option("--preset", help="Speed of the encoder.  [default: veryfast]")
@click.option(
    "--while-building",
    is_flag=True,
    help="Where an engine must be built first: start on a quick one and change over to it.",
)
@click.option(
    "--devices",
    callback=_read_by(indices),
    metavar="LIST",
    default="",
    help="GPUs to share the frames, such as 0,1; a process for each.  [default: the first]",
)
@click.option(
    "--resume",
    is_flag=True,
    help="Keep finished parts of a video where the run fails, and go on from them.",
)
@click.option(
    "--allow-truncated",
    is_flag=True,
    help="Take what decodes of a video that is cut short, instead of failing.",
)
def run_command(
    output: Output,
    source: Path,
    path: Path | None,
    **options: Any,
) -> None:
    """Upscale a video, a picture or a folder of pictures.

    "-" as INPUT takes a video as YUV4MPEG2 from standard input, as OUTPUT (the default then)
    it writes one to standard output.
    """
    from .api import upscale
    from .commands.run import speed

    stdin = source == STANDARD
    stdout = path == STANDARD or (stdin and not path)
    output.piped = stdout
    if stdout and output.json_file == STANDARD:
        raise click.UsageError("standard output cannot take the video and the JSON")
    if stdout:
        check_standard_output()
    with output.progress("pictures" if not stdin and source.is_dir() else "frames") as update:
        result = upscale(
            sys.stdin.buffer if stdin else source,
            sys.stdout.buffer if stdout else path,
            say=output.say,
            progress=update,
            **options,
        )
    for note in result.notes:
        output.say(f"note: {note}")
    document: dict[str, Any] = {
        "output": "-" if stdout else str(result.output),
        "frames": result.frames,
        "seconds": result.seconds,
        "notes": result.notes,
    }
    if result.video is not None:
        video = result.video
        output.say(
            f"{video.frames} frames of {video.width}×{video.height} in"
            f" {result.seconds:.1f} s: {speed(video.fps)}"
        )
        document |= {
            "fps": video.fps,
            "width": video.width,
            "height": video.height,
            "codec": video.codec,
            "engine_busy_seconds": video.engine_busy_seconds,
        }
    else:
        pictures = "1 picture" if result.frames == 1 else f"{result.frames} pictures"
        output.say(f"{pictures} in {result.seconds:.1f} s")
    output.say(f"wrote {document['output']}")
    output.result(document)


@command(
    "validate",
    examples=[
        ("srdeploy validate --data Set5", "the newest engine here, on Set5"),
        ("srdeploy validate --data photos --max-drift 0.05", "exit code 3 where it loses more"),
        ("srdeploy validate --data Set5 --report drift.html", "picture by picture, on a page"),
    ],
    instead=OF_AN_ENGINE,
)
@click.option("--engine", type=FilePath(), help="Engine or bundle to measure.")
@click.option(
    "--onnx",
    type=FilePath(),
    help="Exported ONNX to measure; with --engine, what it was built from.",
)
@click.option(
    "--data",
    required=True,
    type=FilePath(),
    help="Data sets, or a folder of HR pictures.",
)
@click.option(
    "--max-drift",
    callback=_read_by(budget),
    metavar="DB[,DB]",
    help="Exit with 3 where a set loses more on average, or a picture more than the second number."
    "  [default: 4 times the first]",
)
@click.option("--report", type=OutputPath(), help="HTML report to write.")
def validate_command(
    output: Output, max_drift: Budget | None, report: Path | None, **options: Any
) -> None:
    """Measure the drift of an engine against PyTorch fp32.

    An engine that cannot run on this machine has its graph measured in a target that can, which is
    said.
    """
    from .api import measure_drift
    from .commands.validate import summary_of
    from .validate.drift import check_budget, to_json

    with output.progress("pictures") as update:
        result = measure_drift(say=output.say, progress=update, **options)
    for dataset in result.datasets:
        output.say(summary_of(dataset))
    if not result.subject.engine_executed:
        output.say(
            f"note: these are figures of the engine's graph, executed in"
            f" {result.subject.executed_on}; the engine itself was not executed"
        )
    if report is not None:
        from .report.drift import write_report

        write_report(
            report, result.subject, result.datasets, manifest=result.manifest, budget=max_drift
        )
        output.say(f"wrote {report}")
    output.result(to_json(result.subject, result.datasets, max_drift))
    if max_drift is not None:
        check_budget(result.datasets, max_drift)


@command(
    "ls",
    engines_group,
    examples=[
        ("srdeploy engines ls", "what is there, the last used first"),
        ("srdeploy engines ls --json -", "the same for a script"),
    ],
)
def engines_ls_command(output: Output) -> None:
    """Show what the store holds, the last used engine first."""
    from .commands.engines import format_engines, list_engines, summary_of
    from .runtime.store import EngineStore

    listed = list_engines(EngineStore())
    output.say(summary_of(listed))
    if listed["engines"]:
        output.show(format_engines(listed))
    output.result(listed)


@command(
    "verify",
    engines_group,
    examples=[
        ("srdeploy engines verify", "exit code 1 where something is damaged"),
        ("srdeploy engines verify --repair", "remove what is damaged"),
    ],
)
@click.option("--repair", is_flag=True, help="Remove damaged engines.")
def engines_verify_command(output: Output, repair: bool) -> None:
    """Check every byte of the store.

    Exits with 1 where something is damaged and stays.
    """
    from .commands.engines import counted, damaged_error, verify_engines
    from .runtime.store import EngineStore

    store = EngineStore()
    count = len(store.entries())
    damaged = verify_engines(store, repair, output.say)
    output.result({"engines": count, "damaged": damaged, "repaired": repair})
    if damaged and not repair:
        raise damaged_error(list(damaged), count)
    output.say(f"whole: {counted(count - len(damaged))}")


@command(
    "prune",
    engines_group,
    examples=[
        ("srdeploy engines prune --older 30", "what was not used for 30 days"),
        ("srdeploy engines prune --keep 2", "down to 2 GiB"),
    ],
)
@click.option(
    "--keep",
    "keep_gib",
    type=click.FloatRange(0, 1 << 20),
    metavar="GIB",
    help="Most that is to be left.  [default: the store's limit]",
)
@click.option(
    "--older",
    "older_days",
    type=click.FloatRange(0, 36500),
    metavar="DAYS",
    help="Remove what was not used for so long, whatever its size.",
)
def engines_prune_command(output: Output, **options: Any) -> None:
    """Remove engines that were not used for long.

    The least recently used go first, and what killed processes left goes too.
    """
    from .commands.engines import prune_engines
    from .runtime.store import EngineStore

    output.result(prune_engines(EngineStore(), **options, say=output.say))


@command(
    "export",
    engines_group,
    examples=[
        ("srdeploy engines export net.engine", "net.engine.srbundle, for another machine"),
        ("srdeploy engines export 3f2a --as-engine", "an entry of the store as a file"),
    ],
)
@click.argument("which", metavar="ENGINE_OR_DIGEST")
@click.option(
    "-o",
    "--output",
    "path",
    type=OutputPath(),
    help="File to write.  [default: the engine's name, with .srbundle]",
)
@click.option("--as-engine", is_flag=True, help="Write the engine and its manifest, no bundle.")
def engines_export_command(output: Output, which: str, path: Path | None, as_engine: bool) -> None:
    """Write an engine as a bundle for another machine.

    A bundle holds the graph too that the engine was built from.
    """
    from .commands.engines import export_engine
    from .runtime.store import EngineStore

    output.result(export_engine(EngineStore(), which, path, as_engine, output.say).document())


@command(
    "import",
    engines_group,
    examples=[
        ("srdeploy engines import net.srbundle", "into the store"),
        ("srdeploy engines import net.srbundle -o net.engine", "and as a file"),
    ],
)
@click.argument("bundle", type=FilePath())
@click.option("-o", "--output", "path", type=OutputPath(), help="Engine to write.")
def engines_import_command(output: Output, bundle: Path, path: Path | None) -> None:
    """Put a bundle's engine into the store.

    It is rebuilt where it does not fit this machine.
    """
    from .commands.engines import import_engine
    from .runtime.store import EngineStore

    output.result(import_engine(EngineStore(), bundle, path, output.say).document())


@command(
    "doctor",
    examples=[
        ("srdeploy doctor", "in words"),
        ("srdeploy doctor --json -", "for a report of a fault"),
    ],
)
def doctor_command(output: Output) -> None:
    """Show what this machine can do, and what installs the rest."""
    from .commands.doctor import check_base, doctor, format_report, to_json

    report = doctor(output.say)
    output.show(format_report(report))
    output.result(to_json(report))
    check_base(report)
