"""The networks: one file per architecture, found by listing this folder.

A new architecture is one new file that defines ``ARCHITECTURE``; its file name is its id.
Nothing here imports torch until an architecture is opened.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from ..errors import SrDeployError
from ..spec import ModelSpec

if TYPE_CHECKING:
    import torch

StateDict: TypeAlias = "Mapping[str, torch.Tensor]"


@dataclass(frozen=True)
class PublishedWeights:
    """Where the authors' own weights of a variant are.

    Attributes:
        url: Direct address of the file.
        sha256: Its digest, hexadecimal.
        licence: What its authors say of its use.
    """

    url: str
    sha256: str
    licence: str

    @property
    def file_name(self) -> str:
        """Name under which the download cache keeps it."""
        return self.url.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class Variant:
    """A named configuration of an architecture.

    Attributes:
        name: Id such as ``vapsr-s-x4``: model, then scale.
        scale: Upscaling factor.
        config: The architecture's own configuration object.
        parameters: Number of parameters.
        published: The authors' weights, if there are any.
    """

    name: str
    scale: int
    config: Any
    parameters: int
    published: PublishedWeights | None = None

    @property
    def model(self) -> str:
        """The name that ``--model`` takes: the id without its scale."""
        return self.name.removesuffix(f"-x{self.scale}")


@dataclass(frozen=True)
class Architecture:
    """What the rest of srdeploy knows of a network family.

    Attributes:
        name: Id, equal to the name of the file that defines it.
        paper: Where the network was published.
        variants: Named configurations, best first: ``--model FAMILY`` takes the first one
            whose weights are here.
        configure: Hyper-parameters by name to the configuration, as ``ModelSpec.config`` has
            them.
        detect: State dict to configuration, or None where the tensors are another network's.
        build: Configuration to ``torch.nn.Module`` with untrained weights.
        describe: Configuration to :class:`~srdeploy.spec.ModelSpec`.
        rename: Old tensor name to the one used here.
    """

    name: str
    paper: str
    variants: tuple[Variant, ...]
    configure: Callable[..., Any]
    detect: Callable[[StateDict], Any | None]
    build: Callable[[Any], torch.nn.Module]
    describe: Callable[[Any], ModelSpec]
    rename: Callable[[str], str] = field(default=lambda name: name)


def architecture_names() -> tuple[str, ...]:
    """Ids of all architectures, in alphabetical order."""
    return tuple(sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.ispkg))


def architecture(name: str) -> Architecture:
    """Open an architecture by its id; imports torch.

    Raises:
        SrDeployError: No architecture has this name, or torch is not installed.
    """
    if name not in architecture_names():
        raise SrDeployError(
            f"no architecture is called '{name}'",
            f"known ones: {', '.join(architecture_names())}",
        )
    try:
        module = importlib.import_module(f"{__name__}.{name}")
    except ModuleNotFoundError as exc:
        if exc.name != "torch":
            raise
        raise SrDeployError(
            "this step works on PyTorch networks, and torch is not installed",
            "pip install 'srdeploy[torch]'; building and running engines needs no torch",
        ) from exc
    opened = module.ARCHITECTURE
    if not isinstance(opened, Architecture) or opened.name != name:
        raise SrDeployError(f"models/{name}.py does not define the architecture '{name}'")
    return opened


def all_variants() -> tuple[tuple[Architecture, Variant], ...]:
    """Every variant of every architecture, families in alphabetical order, best first.

    Raises:
        SrDeployError: Two variants have one name.
    """
    pairs = tuple((a, v) for a in map(architecture, architecture_names()) for v in a.variants)
    names = [variant.name for _, variant in pairs]
    doubled = {name for name in names if names.count(name) > 1}
    if doubled:
        raise SrDeployError(f"variants defined twice: {', '.join(sorted(doubled))}")
    return pairs


def candidates(model: str, scale: int) -> tuple[tuple[Architecture, Variant], ...]:
    """Variants that ``--model`` and ``--scale`` can mean, best first.

    Args:
        model: A family (``vapsr``), a model (``vapsr-s``) or a variant (``vapsr-s-x4``).
        scale: Upscaling factor.

    Raises:
        SrDeployError: The name is unknown, or exists at other scales only.
    """
    named = [(a, v) for a, v in all_variants() if model in (a.name, v.model, v.name)]
    if not named:
        names = sorted({v.model for _, v in all_variants()} | set(architecture_names()))
        raise SrDeployError(f"no model is called '{model}'", f"known ones: {', '.join(names)}")
    fitting = tuple((a, v) for a, v in named if v.scale == scale)
    if not fitting:
        scales = ", ".join(str(s) for s in sorted({v.scale for _, v in named}))
        raise SrDeployError(f"{model} has no variant of scale {scale}", f"its scales: {scales}")
    return fitting


def count_indices(state: StateDict, prefix: str) -> int:
    """Number of consecutive blocks ``prefix.0…``, ``prefix.1…`` in a state dict."""
    found = {
        int(parts[1])
        for parts in (name.split(".") for name in state)
        if len(parts) > 2 and parts[0] == prefix and parts[1].isdigit()
    }
    count = 0
    while count in found:
        count += 1
    return count
