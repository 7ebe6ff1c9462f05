"""Reads the tensors of a checkpoint file, whoever made it.

Files come from strangers: pickles are read with ``weights_only`` (no code runs), sizes are
limited, and what is no plain array of numbers is refused by the tensor's name.
"""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ...errors import CheckpointError

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
            f"{path}: the tensor '{shown(name)}' is {tensor.dtype}, {tensor.layout}, on"
            f" {tensor.device}: expected plain numbers in float32, half precision or integers",
            "save the tensors alone: torch.save(network.state_dict(), FILE)",
        )
    if tensor.untyped_storage().nbytes() < tensor.numel() * tensor.element_size():
        raise CheckpointError(
            f"{path}: the tensor '{shown(name)}' claims {tuple(tensor.shape)} numbers, the file"
            " holds fewer"
        )
    if tensor.is_floating_point() and not torch.isfinite(tensor).all():
        raise CheckpointError(
            f"{path}: the tensor '{shown(name)}' holds NaN or infinity",
            "the training that made it has diverged; take an earlier checkpoint",
        )


def shown(name: str) -> str:
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
