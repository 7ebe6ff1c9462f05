"""The networks: one file per architecture, found by listing this folder.

A new architecture is a file here that defines ``ARCHITECTURE``, whose name is its id, and a file
of the same name in ``networks/`` whose ``NETWORK`` is the torch module. Nothing imports torch
until a network is built, so that listing them is quick and needs none.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from ..errors import SrDeployError
from ..installation import install_extra
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
class PublishedQuality:
    """PSNR that the authors report: Y channel, border of ``scale`` pixels, bicubic LR.

    Attributes:
        psnr: dB on Set5, Set14 and BSD100.
        source: Where it was read.
    """

    psnr: tuple[float, float, float]
    source: str


@dataclass(frozen=True)
class Variant:
    """A named configuration of an architecture.

    Attributes:
        name: Id such as ``vapsr-s-x4``: model, then scale.
        scale: Upscaling factor.
        config: The architecture's own configuration object.
        parameters: Number of parameters, tensors that are not trained included.
        macs: Multiply-accumulates of its convolutions and matrix products for a picture of
            1280×720 output pixels.
        published: The authors' weights, where they can be fetched.
        page: Where the authors offer their weights otherwise.
        quality: What the authors report of them.
        tiny: Made for tests: taken only where it is named, never for its family.
    """

    name: str
    scale: int
    config: Any
    parameters: int
    macs: int
    published: PublishedWeights | None = None
    page: str = ""
    quality: PublishedQuality | None = None
    tiny: bool = False

    @property
    def model(self) -> str:
        """The name that ``--model`` takes: the id without its scale."""
        return self.name.removesuffix(f"-x{self.scale}")

    @property
    def way_to_weights(self) -> str:
        """The command or page that gives weights of this variant."""
        if self.published:
            return f"srdeploy fetch {self.name}"
        if self.page:
            return f"download from {self.page}, then srdeploy export --weights FILE"
        return f"srdeploy train --model {self.model} --scale {self.scale}"


@dataclass(frozen=True)
class Architecture:
    """What the rest of srdeploy knows of a network family.

    Attributes:
        name: Id, equal to the name of the file that defines it and of that in ``networks/``.
        paper: Where the network was published.
        variants: Named configurations, best first: ``--model FAMILY`` takes the first one
            whose weights are here.
        marks: Patterns of tensor names that no other architecture has; a state dict with one
            of them is this architecture's.
        configuration: Dataclass of the hyper-parameters, whose JSON is ``ModelSpec.config``.
        detect: State dict with a mark to configuration. Raises KeyError with the name of a
            missing tensor, or ValueError with what is wrong.
        describe: Configuration to :class:`~srdeploy.spec.ModelSpec`.
        rename: Old tensor name to the one used here.
        derived: Patterns of buffers that follow from the configuration; a file may lack them.
        untold: Hyper-parameters that stand in no tensor.
    """

    name: str
    paper: str
    variants: tuple[Variant, ...]
    marks: tuple[str, ...]
    configuration: type[Any]
    detect: Callable[[StateDict], Any]
    describe: Callable[[Any], ModelSpec]
    rename: Callable[[str], str] = field(default=lambda name: name)
    derived: tuple[str, ...] = ()
    untold: tuple[str, ...] = ()

    def build(self, config: Any) -> torch.nn.Module:
        """The network of a configuration, with untrained weights; imports torch.

        Raises:
            SrDeployError: torch is not installed.
            ValueError: No network has this configuration.
        """
        try:
            module = importlib.import_module(f"{__name__}.networks.{self.name}")
        except ModuleNotFoundError as exc:
            if exc.name != "torch":
                raise
            raise SrDeployError(
                "this step works on PyTorch networks, and torch is not installed",
                install_extra("torch"),
            ) from exc
        network: torch.nn.Module = module.NETWORK(config)
        return network

    def claims(self, state: StateDict) -> bool:
        """Whether a tensor name is one that only this architecture has."""
        return any(re.match(mark, name) for mark in self.marks for name in state)

    def is_derived(self, name: str) -> bool:
        """Whether a tensor follows from the configuration."""
        return any(re.fullmatch(pattern, name) for pattern in self.derived)

    def variant_name(self, config: Any, scale: int) -> str:
        """Id of the variant of this configuration, or ``FAMILY-custom-xS``."""
        names = (v.name for v in self.variants if v.config == config)
        return next(names, f"{self.name}-custom-x{scale}")


def architecture_names() -> tuple[str, ...]:
    """Ids of all architectures, in alphabetical order."""
    return tuple(sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.ispkg))


def architecture(name: str) -> Architecture:
    """Open an architecture by its id.

    Raises:
        SrDeployError: No architecture has this name.
    """
    if name not in architecture_names():
        raise SrDeployError(
            f"no architecture is called '{name}'",
            f"known ones: {', '.join(architecture_names())}",
        )
    opened = importlib.import_module(f"{__name__}.{name}").ARCHITECTURE
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
    named = [
        (a, v)
        for a, v in all_variants()
        if model in (v.model, v.name) or (model == a.name and not v.tiny)
    ]
    if not named:
        names = sorted({v.model for _, v in all_variants()} | set(architecture_names()))
        raise SrDeployError(f"no model is called '{model}'", f"known ones: {', '.join(names)}")
    fitting = [(a, v) for a, v in named if v.scale == scale]
    if not fitting:
        scales = ", ".join(str(s) for s in sorted({v.scale for _, v in named}))
        raise SrDeployError(f"{model} has no variant of scale {scale}", f"its scales: {scales}")
    # "hat" is a family and a model: the model of that very name comes first
    return tuple(sorted(fitting, key=lambda pair: pair[1].model != model))
