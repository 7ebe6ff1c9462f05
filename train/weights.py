"""The weights that a run starts from, learns from and ends in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save
from torch import nn

from ..errors import TrainingError
from ..files import write_bytes
from ..models import Architecture, Variant
from ..models.weights.checkpoint import load_network
from ..models.weights.state import read_state

# A network of which a file has less than this shares a few vectors with it by chance.
LEAST_SHARE = 0.1


@dataclass(frozen=True)
class Start:
    """What a network took of a checkpoint.

    Attributes:
        taken: Tensors that are the checkpoint's.
        fresh: Names of the network's others, which start untrained.
        share: Of the network's numbers that were taken.
    """

    taken: int
    fresh: tuple[str, ...]
    share: float

    def __str__(self) -> str:
        told = f"{self.taken} of {self.taken + len(self.fresh)} tensors"
        if not self.fresh:
            return f"all {self.taken} tensors"
        parts = dict.fromkeys(name.split(".")[0] for name in self.fresh)
        return f"{told}, {self.share:.0%} of the weights; untrained in {', '.join(parts)}"


def untrained(family: Architecture, variant: Variant, seed: int) -> nn.Module:
    """A network with random weights that follow from ``seed`` alone."""
    torch.manual_seed(seed)
    return family.build(variant.config)


def start_from(path: Path, network: nn.Module, family: Architecture) -> Start:
    """Give a network the tensors of a checkpoint whose names and shapes it has too.

    The checkpoint may be of the network itself, of another scale or size of it, or of another
    network with the same trunk, as RCAN's is for HAN.

    Raises:
        CheckpointError: The file cannot be read, or is a damaged one of this architecture.
        TrainingError: The network has next to nothing in common with it.
    """
    state = {family.rename(name): tensor for name, tensor in read_state(path).items()}
    if family.claims(state):
        state = load_network(path, path.name)[0].state_dict()  # checks every tensor
    own = {n: t for n, t in network.state_dict().items() if not family.is_derived(n)}
    taken = {n: t for n, t in state.items() if n in own and own[n].shape == t.shape}
    share = sum(t.numel() for t in taken.values()) / sum(t.numel() for t in own.values())
    if share < LEAST_SHARE:
        raise TrainingError(
            f"{path} fits {len(taken)} of the {len(own)} tensors to be trained,"
            f" {share:.1%} of the weights: too little to start from",
            "choose --model and --scale as the checkpoint has them, or one with the same trunk",
        )
    network.load_state_dict(taken, strict=False)
    return Start(len(taken), tuple(name for name in own if name not in taken), share)


def load_teacher(path: Path, scale: int) -> tuple[nn.Module, str]:
    """The network of a checkpoint, to learn from, and the name of its variant.

    Raises:
        CheckpointError: The file is damaged or of an unknown network.
        TrainingError: It upscales by something else.
    """
    teacher, spec = load_network(path, path.name)
    if spec.scale != scale:
        raise TrainingError(
            f"the teacher {path} is {spec.variant} and upscales by {spec.scale},"
            f" the training is at scale {scale}",
            f"choose a teacher of scale {scale}",
        )
    return teacher, spec.variant


def store(path: Path, network: nn.Module, family: Architecture, half: bool) -> None:
    """Write the tensors that a checkpoint file needs: not those that follow from its shapes.

    Args:
        path: ``.safetensors`` file.
        network: Whose tensors.
        family: Its architecture.
        half: Write them in fp16.

    Raises:
        OutputError: The file cannot be written.
    """
    tensors = {
        name: (tensor.half() if half and tensor.is_floating_point() else tensor).cpu().contiguous()
        for name, tensor in network.state_dict().items()
        if not family.is_derived(name)
    }
    write_bytes(path, save(tensors))
