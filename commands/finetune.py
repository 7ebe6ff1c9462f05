"""Recovery of an int8 graph by training: its float weights and ranges, trained as int8."""

from __future__ import annotations

import dataclasses
import hashlib
import tempfile
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, numpy_helper

from ..calib.fingerprint import Fingerprint, fingerprint
from ..calib.int8 import Int8Calibration, Int8Result
from ..calib.journal import digest_model
from ..calib.pictures import NamedPicture, load_pictures
from ..calib.quantiser import Quantiser
from ..export.quantise import LEVELS, quantisable_weights
from ..runtime.model_file import attach_spec
from ..spec import ModelSpec
from ..validate.resize import modcrop, shrink
from . import Say
from .calibration import bundled, refuse_shared
from .one_engine import Source

if TYPE_CHECKING:
    from ..train.quantised import FakeQuant
    from ..train.recipe import Recipe
    from ..train.validation import Pair

Bounds = Mapping[str, tuple[float, float]]

# LR pixels of the middle of a tuning picture.
_WINDOW = (64, 96)


@dataclass(frozen=True)
class FineTuned:
    """An int8 network after training.

    Attributes:
        model: The float graph, with the trained weights and a spec that tells them.
        ranges: Activation tensor to its (low, high), for ``quantise`` as they are. Biases were
            trained with the weights' rounding in place: they want no correction, and weights
            no other rounding than to the nearest.
        spec: As in the metadata of ``model``.
        psnr: Of the int8 network by tuning picture, and their ``mean``, dB.
    """

    model: onnx.ModelProto
    ranges: dict[str, tuple[float, float]]
    spec: ModelSpec
    psnr: dict[str, float]


@dataclass(frozen=True)
class Recovered:
    """A fine-tuned network as a search result.

    Attributes:
        int8: Its graph and report; the layers' sensitivities are those before the training.
        sha256: Digest of the trained float graph; empty where training gained nothing and the
            search's own graph is the result.
    """

    int8: Int8Result
    sha256: str


def trained_on(folders: Sequence[Path]) -> dict[str, Fingerprint]:
    """The pictures to fine-tune on, by name.

    Raises:
        TrainingError: torch or lightning-fabric is not installed.
        DatasetError: There is no picture, or they share one with the tuning or proof pictures.
    """
    from ..train.data import find_pictures  # says what is missing where there is no torch

    pictures = load_pictures(find_pictures(folders)).read()
    found = {picture.name: fingerprint(picture.pixels) for picture in pictures}
    refuse_shared(found, "--finetune")
    return found


def recover(
    source: Source,
    calibrated: Int8Calibration,
    found: Int8Result,
    folders: Sequence[Path],
    kept: Path,
    say: Say,
) -> Recovered:
    """Fine-tune what a search left in int8.

    Args:
        source: The exported network.
        calibrated: Its calibration.
        found: Which layers stay in float.
        folders: Training pictures, used as HR.
        kept: Beside this file the training is kept up to date, and goes on from there.
        say: Takes lines of progress.

    Raises:
        SrDeployError: As :func:`finetune`.
    """
    from ..train.distil import RECOVERY

    quantiser = calibrated.repaired.quantiser
    names = sorted(str(path.resolve()) for path in folders)
    run = hashlib.sha256(
        "\n".join([repr(RECOVERY), quantiser.digest(), *found.float_nodes, *names]).encode()
    ).hexdigest()
    tuned = finetune(
        source.model,
        quantiser.model,
        quantiser.ranges,
        found.float_nodes,
        source.spec,
        folders,
        bundled("tuning"),
        say,
        checkpoint=kept.with_suffix(f".{run[:16]}.pth"),
        start=_repaired_tensors(quantiser, found.float_nodes),
    )
    trained = Quantiser(tuned.model, tuned.ranges, {}, {}, quantiser.in_pairs)
    tuning, reference = calibrated.tuning, calibrated.repaired.reference
    drift = tuning.drift(tuning.psnr_of(trained.graph(found.float_nodes)), reference)
    report = found.report
    chosen = report.trials[report.chosen]
    if drift <= chosen.drift:
        without = f"no better than {chosen.drift:+z.3f} without"
        say(f"training gives {drift:+z.3f} dB, {without}: left out")
        return Recovered(found, "")
    after = dataclasses.replace(chosen, label=f"{chosen.label}, fine-tuned", drift=drift)
    trials = (*report.trials[: report.chosen + 1], after, *report.trials[report.chosen + 1 :])
    report = dataclasses.replace(report, trials=trials, chosen=report.chosen + 1)
    repaired = dataclasses.replace(calibrated.repaired, quantiser=trained)
    int8 = dataclasses.replace(found, repaired=repaired, report=report)
    return Recovered(int8, digest_model(tuned.model))


def _repaired_tensors(
    quantiser: Quantiser, float_nodes: Collection[str]
) -> dict[str, NDArray[np.float32]]:
    """Weights as they come out of their codes, and corrected biases, by their own names.

    Rounded to the nearest they are nearly the same codes again (a channel whose largest code
    is below 127 gets a finer scale), so training starts near what the repairs reached.
    """
    arrays = _arrays(quantiser.graph(float_nodes))
    weights = quantisable_weights(quantiser.model)
    found: dict[str, NDArray[np.float32]] = {}
    for node in quantiser.model.graph.node:
        weight = weights.get(node.name)
        if weight is None or node.name in float_nodes:
            continue
        pair = f"{weight.name}/int8_axis{weight.axis}"
        codes, scales = arrays[f"{pair}/codes"], arrays[f"{pair}/scales"]
        others = [axis for axis in range(codes.ndim) if axis != weight.axis]
        found[weight.name] = codes * np.expand_dims(scales, others)
        if len(node.input) > 2 and (bias := arrays.get(f"{node.name}/int8_bias")) is not None:
            found[node.input[2]] = bias
    return found


def finetune(
    source: onnx.ModelProto,
    prepared: onnx.ModelProto,
    ranges: Bounds,
    float_nodes: Collection[str],
    spec: ModelSpec,
    folders: Sequence[Path],
    tuning: Sequence[NamedPicture],
    say: Say,
    recipe: Recipe | None = None,
    checkpoint: Path | None = None,
    start: Mapping[str, NDArray[np.floating]] | None = None,
) -> FineTuned:
    """Train the network of a calibrated graph so that its int8 form comes near the original.

    Args:
        source: Exported ONNX; its network is the teacher. It is not changed.
        prepared: The same after equalisation, which calibration made of it; not changed either.
        ranges: Calibrated ranges of ``prepared``.
        float_nodes: Quantisable nodes that stay in float.
        spec: Of ``source``.
        folders: Training pictures, used as HR.
        tuning: Pictures whose PSNR is reported, taken as HR.
        say: Takes lines of progress.
        recipe: Of the training; None for ``train.distil.RECOVERY``.
        checkpoint: Kept up to date, and where to go on from; None for one that is thrown away.
        start: Tensor of the checkpoint to what training starts from; others as in ``prepared``.

    Raises:
        DatasetError: A folder is missing or holds no usable picture.
        TrainingError: The network cannot be rebuilt from the graph, or training failed.
    """
    from ..train.data import PatchSampler, find_pictures
    from ..train.distil import RECOVERY, fine_tune, rebuild, start_from
    from ..train.quantised import quantise_network

    recipe = recipe or RECOVERY
    sampler = PatchSampler(find_pictures(folders), spec.scale, recipe.patch)
    say(
        f"fine-tuning on {len(sampler.pairs)} pictures, {len(sampler.skipped)} left out,"
        f" {recipe.steps} steps of {recipe.batch} patches"
    )
    student, teacher = rebuild(spec, _arrays(prepared), _arrays(source), _input_scales(prepared))
    start_from(student, start or {})
    grids = quantise_network(student, _layers(prepared, ranges, float_nodes))
    pairs = [_pair(picture, spec.scale) for picture in tuning]
    with tempfile.TemporaryDirectory() as folder:
        kept = checkpoint or Path(folder) / "checkpoint.pth"
        tuned = fine_tune(student, teacher, grids, sampler, recipe, kept, pairs, say)
    model, spec = _rewritten(prepared, tuned.tensors, spec)
    return FineTuned(model, {**ranges, **tuned.bounds}, spec, tuned.psnr)


def _arrays(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}


def _modules(model: onnx.ModelProto) -> dict[str, str]:
    """Quantisable node to its module, where the module's weight serves no other node."""
    weights = {node: weight.name for node, weight in quantisable_weights(model).items()}
    readers = Counter(weights.values())
    return {
        node: name.removesuffix(".weight")
        for node, name in weights.items()
        if readers[name] == 1 and name.endswith(".weight")
    }


def _input_scales(model: onnx.ModelProto) -> dict[str, NDArray[np.float32]]:
    """Module to the constant by which a node of equalisation multiplies its input."""
    arrays, modules = _arrays(model), _modules(model)
    producers = {out: node for node in model.graph.node for out in node.output}
    scales: dict[str, NDArray[np.float32]] = {}
    for node in model.graph.node:
        before = producers.get(node.input[0]) if node.name in modules else None
        if before is not None and _equalises(before, node):
            scales[modules[node.name]] = arrays[before.input[1]]
    return scales


def _equalises(before: NodeProto, node: NodeProto) -> bool:
    return before.op_type == "Mul" and before.output[0] == f"{node.name}/equalised"


def _layers(
    model: onnx.ModelProto, ranges: Bounds, float_nodes: Collection[str]
) -> dict[str, FakeQuant]:
    from ..train.quantised import FakeQuant

    reads = {node.name: node.input[0] for node in model.graph.node if node.input}
    layers = {}
    for node, module in _modules(model).items():
        if node not in float_nodes:
            reach = max(map(abs, ranges[reads[node]])) or LEVELS  # zero: exact on any grid
            layers[module] = FakeQuant(reads[node], reach / LEVELS)
    return layers


def _pair(picture: NamedPicture, scale: int) -> Pair:
    """The middle of a picture, and what it is shrunk to."""
    hr = modcrop(picture.pixels, scale)
    top, left = (
        max(edge // scale - wanted, 0) // 2 * scale
        for edge, wanted in zip(hr.shape[:2], _WINDOW, strict=True)
    )
    hr = hr[top : top + _WINDOW[0] * scale, left : left + _WINDOW[1] * scale]
    return picture.name, shrink(hr, scale), hr


def _rewritten(
    prepared: onnx.ModelProto, tensors: Mapping[str, NDArray[np.float32]], spec: ModelSpec
) -> tuple[onnx.ModelProto, ModelSpec]:
    """The graph with other weights, and its spec."""
    from ..models.weights.checkpoint import network_from_arrays

    model = onnx.ModelProto()
    model.CopyFrom(prepared)
    for constant in model.graph.initializer:
        if constant.name in tensors:
            values = tensors[constant.name].reshape(tuple(constant.dims))
            constant.CopyFrom(numpy_helper.from_array(values, constant.name))
    _, digest = network_from_arrays(spec, _arrays(model))
    tuned = spec.with_weights(f"{spec.weights}, fine-tuned for int8", digest)
    attach_spec(model, tuned)
    return model, tuned
