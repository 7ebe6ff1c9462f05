"""Reads a checkpoint file into a network, or says which tensor is wrong.

Files come from strangers: pickles are read with ``weights_only`` (no code runs), sizes are
limited, and every tensor is checked before the first one is copied into the network.
"""

from __future__ import annotations

import dataclasses
import hashlib
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ...errors import CheckpointError
from ...spec import ModelSpec, revive
from .. import Architecture, architecture, architecture_names

LARGEST_BYTES = 2 << 30
# Keys under which training scripts put the tensors, the averaged weights first.
WRAPPERS = ("params_ema", "params", "state_dict", "model")
PREFIX = "module."
# A zip file, and the pickles that torch.save wrote before it.
_BEGINNINGS = (b"PK", b"\x80")
# What torch.optim.swa_utils.AveragedModel saves beside the network.
_BESIDE = ("n_averaged",)
_TYPES = (
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
    torch.int32,
    torch.int64,
)


def read_state(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a ``.pth``, ``.pt`` or ``.safetensors`` file as float32 on the CPU.

    Wrappers (``params_ema`` before ``params``) and the prefix ``module.`` are taken off.

    Raises:
        CheckpointError: The file is missing, too large, damaged, no checkpoint, or holds code.
    """
    if not path.is_file():
        raise CheckpointError(f"there is no file {path}", "check the path given to --weights")
    size = path.stat().st_size
    if size > LARGEST_BYTES:
        raise CheckpointError(
            f"{path} has {size / 2**30:.1f} GiB, at most {LARGEST_BYTES >> 30} are read",
            "no network that srdeploy knows is nearly that large",
        )
    content = _load(path)
    state = _unwrap(content, path)
    for name, tensor in state.items():
        _check_plain(name, tensor, path)
    return {n: t.float() if t.is_floating_point() else t for n, t in state.items()}


def _check_plain(name: str, tensor: Tensor, path: Path) -> None:
    """Refuse what is no plain array of numbers, before anything is computed with it.

    Raises:
        CheckpointError: Naming the tensor.
    """
    plain = tensor.layout is torch.strided and tensor.device.type == "cpu"
    if not plain or tensor.is_quantized or tensor.dtype not in _TYPES:
        raise CheckpointError(
            f"{path}: the tensor '{_shown(name)}' is {tensor.dtype}, {tensor.layout}, on"
            f" {tensor.device}: expected plain numbers in float32, half precision or integers",
            "save the tensors alone: torch.save(network.state_dict(), FILE)",
        )
    if tensor.untyped_storage().nbytes() < tensor.numel() * tensor.element_size():
        raise CheckpointError(
            f"{path}: the tensor '{_shown(name)}' claims {tuple(tensor.shape)} numbers, the file"
            " holds fewer"
        )
    if tensor.is_floating_point() and not torch.isfinite(tensor).all():
        raise CheckpointError(
            f"{path}: the tensor '{_shown(name)}' holds NaN or infinity",
            "the training that made it has diverged; take an earlier checkpoint",
        )


def _shown(name: str) -> str:
    """A tensor's name as it can be printed: whoever made the file chose it."""
    printable = name if name.isprintable() else ascii(name)[1:-1]
    return printable if len(printable) <= 100 else printable[:100] + "…"


def _load(path: Path) -> Any:
    if path.suffix == ".safetensors":
        try:
            return load_file(path, device="cpu")
        except (SafetensorError, OSError, ValueError) as exc:
            raise CheckpointError(f"{path} is not a safetensors file: {exc}") from exc
    with path.open("rb") as file:
        if not file.read(2).startswith(_BEGINNINGS):
            raise _not_a_checkpoint(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on the pickle's protocol; what counts is raised
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as exc:
        reason = str(exc)
        if re.search(r"unsupported (global|class)", reason, re.IGNORECASE):
            raise CheckpointError(
                f"{path} holds Python objects beside tensors, which could run code: not loaded",
                "save the tensors alone: torch.save(network.state_dict(), FILE)",
            ) from exc
        raise _not_a_checkpoint(path, exc) from exc
    except (
        RuntimeError,
        EOFError,
        OSError,
        ValueError,
        KeyError,
        IndexError,
        AttributeError,
        TypeError,
        UnicodeDecodeError,
        zipfile.BadZipFile,
    ) as exc:
        raise _not_a_checkpoint(path, exc) from exc


def _not_a_checkpoint(path: Path, exc: Exception | None = None) -> CheckpointError:
    # What the unpickler says of a file that is no pickle ("101") helps nobody.
    telling = isinstance(exc, RuntimeError | OSError) and str(exc)
    reason = f": {str(exc).splitlines()[0][:160]}" if telling else ""
    return CheckpointError(
        f"{path} is not a PyTorch checkpoint, or is damaged{reason}",
        "expected a .pth or .pt file saved by torch.save, or .safetensors",
    )


def _unwrap(content: Any, path: Path) -> dict[str, Tensor]:
    """The mapping of names to tensors inside whatever a training script saved."""
    for _ in range(3):  # {"state_dict": {"params": …}} is as deep as it gets
        if not isinstance(content, dict):
            break
        inner = next((content[k] for k in WRAPPERS if isinstance(content.get(k), dict)), None)
        if not inner:
            break
        content = inner
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, expected named tensors")
    tensors = {str(k): v for k, v in content.items() if isinstance(v, Tensor) and k not in _BESIDE}
    if not tensors:
        raise CheckpointError(f"{path} holds no tensors")
    if all(name.startswith(PREFIX) for name in tensors):
        tensors = {name.removeprefix(PREFIX): tensor for name, tensor in tensors.items()}
    return tensors


def detect(state: dict[str, Tensor], path: Path) -> tuple[Architecture, Any, dict[str, Tensor]]:
    """Find the architecture and configuration that the tensors belong to.

    Returns:
        The architecture, its configuration, and the tensors under its present names.

    Raises:
        CheckpointError: No architecture fits, with the nearest ones; or one does, and the
            message names the tensor that is missing or contradicts the others.
    """
    for name in architecture_names():
        family = architecture(name)
        renamed = {family.rename(key): tensor for key, tensor in state.items()}
        if not family.claims(renamed):
            continue
        if len(renamed) < len(state):
            twice = next(k for k in state if family.rename(k) != k and family.rename(k) in state)
            raise CheckpointError(
                f"{path} has the tensor '{family.rename(twice)}' twice, also as '{twice}'"
            )
        try:
            return family, family.detect(renamed), renamed
        except KeyError as exc:
            raise CheckpointError(
                f"{path} looks like a checkpoint of {name}, but the tensor '{exc.args[0]}' is"
                " missing",
                "the file is incomplete: download or save it again",
            ) from exc
        except ValueError as exc:
            raise CheckpointError(
                f"{path} looks like a checkpoint of {name}, but {exc}",
                "its network was changed, or the file is damaged",
            ) from exc
    raise _unknown(state, path)


def _unknown(state: dict[str, Tensor], path: Path) -> CheckpointError:
    """The error for a file that no architecture claims: the nearest ones, and what differs."""
    nearest: dict[str, tuple[float, str, list[str], list[str]]] = {}
    for name in architecture_names():
        family = architecture(name)
        renamed = {family.rename(key) for key in state}
        # the scales of a model differ in a few names only, and building is what takes the time
        for variant in {v.model: v for v in reversed(family.variants)}.values():
            with torch.device("meta"):
                expected = set(family.build(variant.config).state_dict())
            expected = {key for key in expected if not family.is_derived(key)}
            share = len(expected & renamed) / len(expected | renamed)
            if share > nearest.get(name, (0.0,))[0]:
                missing, unexpected = sorted(expected - renamed), sorted(renamed - expected)
                nearest[name] = (share, variant.name, missing, unexpected)
    ranked = sorted(nearest.values(), reverse=True)[:2]
    told = f"{path} is a checkpoint of a network that srdeploy does not know"
    hint = f"known architectures: {', '.join(architecture_names())}"
    if not ranked:
        return CheckpointError(
            f"{told}: not one tensor name is known; the first is '{_shown(next(iter(state)))}'",
            hint,
        )
    names = ", then ".join(f"{v} with {share:.0%} of its tensor names" for share, v, *_ in ranked)
    _, variant_name, missing, unexpected = ranked[0]
    differs = [
        f"{'lacks' if kind is missing else 'has besides'} {_first(kind)}"
        for kind in (missing, unexpected)
        if kind
    ]
    return CheckpointError(
        f"{told}: the nearest is {names}; against {variant_name} it {' and '.join(differs)}", hint
    )


def _first(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(f"'{_shown(name)}'" for name in names[:3]) + more


def load_network(
    path: Path, label: str, overrides: Mapping[str, float] | None = None
) -> tuple[nn.Module, ModelSpec]:
    """Build the network that a checkpoint belongs to and load all of its tensors.

    Args:
        path: The checkpoint.
        label: Where the weights are from, for the model's metadata.
        overrides: Hyper-parameters that stand in no tensor, in place of the published ones.

    Raises:
        CheckpointError: The file cannot be read, or a tensor is missing, unexpected or of
            another shape; nothing is loaded halfway.
    """
    family, config, state = detect(read_state(path), path)
    config = _overridden(family, config, overrides or {})
    check_tensors(family, config, state, path)
    network = family.build(config)
    state = _with_derived(family, network, state, path)
    network.load_state_dict(state, strict=True)
    return network.eval().requires_grad_(False), describe(family, config, network, label)


def _overridden(family: Architecture, config: Any, overrides: Mapping[str, float]) -> Any:
    for name in overrides:
        if name not in family.untold:
            raise CheckpointError(
                f"'{name}' of {family.name} cannot be set: its tensors tell it, or it has none",
                f"can be set: {', '.join(family.untold) or 'nothing'}",
            )
    return dataclasses.replace(config, **overrides)


def _with_derived(
    family: Architecture, network: nn.Module, state: dict[str, Tensor], path: Path
) -> dict[str, Tensor]:
    """Fill in the buffers that follow from the configuration, or check those in the file."""
    filled = dict(state)
    for name, own in network.state_dict().items():
        if not family.is_derived(name):
            continue
        if name in state and not torch.equal(state[name], own):
            raise CheckpointError(
                f"{path}: the tensor '{name}' is not the one that {family.name} computes with",
                "the network that it was trained with counts positions differently",
            )
        filled[name] = own
    return filled


def check_tensors(
    family: Architecture, config: Any, state: Mapping[str, Tensor], path: Path
) -> None:
    """Compare names, shapes and kinds before a network is built, which costs memory.

    Raises:
        CheckpointError: Naming the first tensor that is missing, unexpected or different.
    """
    try:
        with torch.device("meta"):
            expected = family.build(config).state_dict()
    except (ValueError, RuntimeError, ZeroDivisionError) as exc:
        raise CheckpointError(
            f"{path}: its tensors make no {family.name} that can be built: {exc}"
        ) from exc
    for kind, names in (
        ("is missing", [n for n in expected if n not in state and not family.is_derived(n)]),
        ("is unexpected", [n for n in state if n not in expected]),
    ):
        if names:
            more = f", and {len(names) - 1} more" if len(names) > 1 else ""
            raise CheckpointError(f"{path}: the tensor '{_shown(names[0])}' {kind}{more}")
    for name, tensor in expected.items():
        if name not in state:
            continue
        if tensor.shape != state[name].shape:
            raise CheckpointError(
                f"{path}: the tensor '{name}' has the shape {tuple(state[name].shape)},"
                f" expected {tuple(tensor.shape)}"
            )
        if tensor.is_floating_point() != state[name].is_floating_point():
            raise CheckpointError(
                f"{path}: the tensor '{name}' holds {state[name].dtype}, expected {tensor.dtype}"
            )


def network_from_arrays(spec: ModelSpec, arrays: Mapping[str, np.ndarray]) -> tuple[nn.Module, str]:
    """Rebuild the network of an exported model from the tensors in its file.

    Args:
        spec: Its architecture and hyper-parameters.
        arrays: Tensor name to values; a graph pass may have reshaped them.

    Returns:
        The network and the digest of its tensors, to be compared with the spec's.

    Raises:
        CheckpointError: A tensor is missing or of another size.
    """
    family = architecture(spec.architecture)
    try:
        config = revive(family.configuration, spec.config)
        with torch.device("meta"):
            expected = family.build(config).state_dict()
    except (TypeError, ValueError, RuntimeError, ZeroDivisionError) as exc:
        raise CheckpointError(f"the configuration of {spec.variant} is damaged: {exc}") from exc
    state: dict[str, Tensor] = {}
    for name, tensor in expected.items():
        if family.is_derived(name):
            continue
        found = arrays.get(name)
        if found is None or found.size != tensor.numel() or found.dtype != np.float32:
            raise CheckpointError(f"the file lacks the tensor '{name}' of {spec.variant}")
        state[name] = torch.from_numpy(found.copy()).reshape(tensor.shape)
    network = family.build(config)
    own = network.state_dict()
    state |= {name: tensor for name, tensor in own.items() if family.is_derived(name)}
    network.load_state_dict(state)
    return network.eval().requires_grad_(False), digest_tensors(network)


def digest_tensors(network: nn.Module) -> str:
    """SHA-256 over the names, shapes, types and values of a network's tensors."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def describe(family: Architecture, config: Any, network: nn.Module, label: str) -> ModelSpec:
    """The spec of a loaded network, with the digest of its tensors."""
    return family.describe(config).with_weights(label, digest_tensors(network))
