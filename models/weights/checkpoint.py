"""Makes a network of a checkpoint's tensors, or says which tensor is wrong.

Every tensor is checked before the first one is copied into the network.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...errors import CheckpointError
from ...spec import ModelSpec, revive
from .. import Architecture, architecture, architecture_names
from .state import read_state, shown


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
    best = sorted(nearest.values(), reverse=True)
    ranked = [near for near in best[:2] if near is best[0] or near[0] > 0.1]
    told = f"{path} is a checkpoint of a network that srdeploy does not know"
    hint = f"known architectures: {', '.join(architecture_names())}"
    if not ranked:
        return CheckpointError(
            f"{told}: not one tensor name is known; the first is '{shown(next(iter(state)))}'",
            hint,
        )
    names = ", then ".join(
        f"{v} with {int(100 * share)} % of its tensor names" for share, v, *_ in ranked
    )
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
    return ", ".join(f"'{shown(name)}'" for name in names[:3]) + more


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
            raise CheckpointError(f"{path}: the tensor '{shown(names[0])}' {kind}{more}")
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
