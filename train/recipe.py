"""What a training run does, and the recipes of the papers as small files.

A recipe file is TOML: ``[recipe]`` holds fields of :class:`Recipe`, ``[contrastive]`` those of
:class:`Contrastive`, ``[quick]`` (and ``[quick.contrastive]``) what ``--quick`` puts in their
place, and ``[source]`` where the values are from, for the reader.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import tomllib
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any, TypeVar

from ..errors import TrainingError

FOLDER = Path(__file__).with_name("recipes")
DEFAULT = "default"

LOSSES = ("l1", "mse", "contrastive")
OPTIMISERS = ("adam", "adamw", "soap")
SCHEDULES = ("linear", "cosine", "steps")
PRECISIONS = ("32", "bf16")
DEGRADATIONS = ("bicubic", "real")

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Contrastive:
    """Settings of ENLCN's contrastive loss, the defaults being the paper's (arXiv:2201.03794).

    Attributes:
        weight: λ, the share of the loss beside L1; 0 for L1 with fresh projections.
        warmup: Steps of L1 alone.
        related: n1, the share of the keys that are related to a query, and of those that are not.
        unrelated_from: n2, the share of the keys that precede the unrelated ones.
        margin: b; queries with a larger gap have no loss.
        redraw_every: Steps that keep a random projection; an epoch in the paper.
    """

    warmup: int
    redraw_every: int
    weight: float = 1e-3
    related: float = 0.02
    unrelated_from: float = 0.08
    margin: float = 1.0


@dataclass(frozen=True)
class Recipe:
    """What a training run does.

    The learning rate rises over ``warmup`` steps. Then the schedule ``linear`` keeps it and lets
    it fall to zero over the last ``decay`` steps, so that a run without an end (``steps`` far
    away) can be cut off at any time by resuming it with a nearer end; ``cosine`` lets it fall to
    ``floor`` over the whole run; ``steps`` multiplies it by ``factor`` at each milestone.

    Attributes:
        steps: Length of the run.
        batch: Patches a step, over all devices.
        patch: Edge of an LR patch, pixels.
        degradation: How LR is made of HR, in training and validation: ``bicubic`` as the
            literature has it, or ``real`` with what :mod:`srdeploy.train.degradation` does.
        loss: ``l1``, ``mse`` or ``contrastive``, which is L1 and what its own settings say.
        optimiser: ``adam``, ``adamw`` or ``soap``.
        betas: Its decays of the averages of the gradient, and of its square and products.
        rate: Learning rate after the warm-up.
        warmup: Steps of warm-up.
        schedule: ``linear``, ``cosine`` or ``steps``.
        decay: Of ``linear``: steps of decay at the end.
        floor: Of ``cosine``: the rate at the end.
        milestones: Of ``steps``: where the rate changes, ascending.
        factor: Of ``steps``: by how much.
        ema: Decay of the exponential moving average of the weights; 0 for none.
        clip: Largest norm of the gradient; 0 for any.
        validate_every: Steps between a validation, which also saves.
        patience: Validations without a better PSNR that end the run; 0 for never. Its weights
            are then those of the best validation.
        precision: ``32``, or ``bf16`` to compute the network in bfloat16.
        compile: Compile the network with ``torch.compile``.
        seed: Of the untrained weights, the patches and all else that is random.
        teacher_share: Share of the loss that is taken against a teacher instead of HR.
        contrastive: Settings of the loss ``contrastive``.

    Raises:
        TrainingError: A value is out of its range, or two contradict each other.
    """

    steps: int = 100_000
    batch: int = 16
    patch: int = 48
    degradation: str = "bicubic"
    loss: str = "l1"
    optimiser: str = "adam"
    betas: tuple[float, float] = (0.9, 0.99)
    rate: float = 1e-3
    warmup: int = 200
    schedule: str = "linear"
    decay: int = 2_000
    floor: float = 0.0
    milestones: tuple[int, ...] = ()
    factor: float = 0.5
    ema: float = 0.999
    clip: float = 1.0
    validate_every: int = 500
    patience: int = 0
    precision: str = "32"
    compile: bool = False
    seed: int = 0
    teacher_share: float = 0.0
    contrastive: Contrastive | None = None

    def __post_init__(self) -> None:
        for name, kinds in _CHOICES.items():
            if getattr(self, name) not in kinds:
                raise _wrong(name, getattr(self, name), f"one of {', '.join(kinds)}")
        for name, (low, high) in _RANGES.items():
            if not low <= getattr(self, name) <= high:
                span = f"at least {low:g}" if math.isinf(high) else f"{low:g} to {high:g}"
                raise _wrong(name, getattr(self, name), span)
        if self.rate == 0:
            raise _wrong("rate", self.rate, "more than 0")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise _wrong("betas", self.betas, "two numbers from 0 to below 1")
        if list(self.milestones) != sorted(set(self.milestones)):
            raise _wrong("milestones", self.milestones, "ascending steps")
        if (self.loss == "contrastive") != (self.contrastive is not None):
            raise TrainingError(
                f"the loss is {self.loss}, and its contrastive settings are"
                f" {'missing' if self.contrastive is None else 'given'}",
                'loss = "contrastive" and a table [contrastive] belong together',
            )

    def rate_at(self, step: int) -> float:
        """Learning rate of a step, which counts from 0."""
        rising = min(1.0, (step + 1) / max(self.warmup, 1))
        return rising * self._rate_after_warmup(step)

    def _rate_after_warmup(self, step: int) -> float:
        if self.schedule == "cosine":
            turned = (1 + math.cos(math.pi * min(step / self.steps, 1.0))) / 2
            return self.floor + (self.rate - self.floor) * turned
        if self.schedule == "steps":
            return self.rate * self.factor ** sum(step >= m for m in self.milestones)
        return self.rate * max(min(1.0, (self.steps - step) / max(self.decay, 1)), 0.0)


_CHOICES = {
    "degradation": DEGRADATIONS,
    "loss": LOSSES,
    "optimiser": OPTIMISERS,
    "schedule": SCHEDULES,
    "precision": PRECISIONS,
}
_RANGES = {
    "steps": (1, math.inf),
    "batch": (1, math.inf),
    "patch": (1, math.inf),
    "rate": (0, 1),
    "warmup": (0, math.inf),
    "decay": (0, math.inf),
    "floor": (0, 1),
    "factor": (0, 1),
    "ema": (0, 1),
    "clip": (0, math.inf),
    "validate_every": (1, math.inf),
    "patience": (0, math.inf),
    "seed": (0, math.inf),
    "teacher_share": (0, 1),
}


def _wrong(name: str, value: object, expected: str) -> TrainingError:
    return TrainingError(
        f"the recipe's {name} is {value}, expected {expected}",
        "docs/training.md lists the fields of a recipe",
    )


def recipe_names() -> list[str]:
    """Names of the recipes that come with srdeploy."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def read_recipe(name: str, quick: bool = False, options: Mapping[str, Any] | None = None) -> Recipe:
    """Open a recipe by its name or file.

    Args:
        name: One of :func:`recipe_names`, or the path of a ``.toml`` file.
        quick: Take its quick form, which runs in minutes on a laptop.
        options: Fields of :class:`Recipe` in place of the file's; None leaves one alone.

    Raises:
        TrainingError: There is no such recipe, the file cannot be read, or a key or value is
            wrong, with its name.
    """
    named = name.endswith(".toml")
    path = Path(name) if named else FOLDER / f"{name}.toml"
    if not named and name not in recipe_names():
        raise TrainingError(
            f"no recipe is called '{name}'",
            f"known ones: {', '.join(recipe_names())}; or name a .toml file",
        )
    try:
        document = tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else exc
        raise TrainingError(f"{path} cannot be read as a recipe: {reason}") from exc
    _check_keys(path, document, ("source", "recipe", "contrastive", "quick"), "")
    tables = {key: _table(path, document, key) for key in ("recipe", "contrastive", "quick")}
    own = tuple(f.name for f in dataclasses.fields(Recipe) if f.name != "contrastive")
    _check_keys(path, tables["recipe"], own, "recipe.")
    _check_keys(path, tables["quick"], (*own, "contrastive"), "quick.")
    fields: dict[str, Any] = {**tables["recipe"], "contrastive": tables["contrastive"]}
    if quick:
        shorter = tables["quick"]
        inner = _table(path, shorter, "contrastive")
        fields |= {**shorter, "contrastive": fields["contrastive"] | inner}
    if not fields["contrastive"]:
        del fields["contrastive"]
    made = _from_table(path, Recipe, fields, "recipe")
    given = {key: value for key, value in (options or {}).items() if value is not None}
    return dataclasses.replace(made, **given)


def _table(path: Path, document: Mapping[str, Any], key: str) -> dict[str, Any]:
    table = document.get(key, {})
    if not isinstance(table, dict):
        raise TrainingError(f"{path}: '{key}' is {table!r}, expected a table", f"write [{key}]")
    return table


def _check_keys(path: Path, table: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            meant = f"'{near[0]}' was meant?" if near else f"known: {', '.join(known)}"
            raise TrainingError(f"{path}: unknown key '{where}{key}'", meant)


def _from_table(path: Path, kind: type[T], table: Mapping[str, Any], where: str) -> T:
    """A dataclass from a table, each value of the type that its field has."""
    hints = typing.get_type_hints(kind)
    _check_keys(path, table, tuple(hints), f"{where}.")
    values = {
        key: _value(path, hints[key], value, f"{where}.{key}") for key, value in table.items()
    }
    try:
        return kind(**values)
    except TrainingError as exc:
        raise TrainingError(f"{path}: {exc.message}", exc.hint) from exc
    except TypeError as exc:  # a field without a default
        raise TrainingError(
            f"{path}: [{where.rpartition('.')[2]}] is incomplete: {str(exc).partition(') ')[2]}"
        ) from exc


def _value(path: Path, kind: Any, value: Any, where: str) -> Any:
    """One value of a file as its field has it; an integer does for a float."""
    members = [k for k in typing.get_args(kind) if k is not NoneType]
    if dataclasses.is_dataclass(members[0] if members else None):
        return _from_table(path, members[0], value, where)
    if typing.get_origin(kind) is tuple:
        open_ended = members[-1] is Ellipsis
        if isinstance(value, list) and (open_ended or len(value) == len(members)):
            return tuple(_value(path, members[0], each, where) for each in value)
    elif kind is float and type(value) in (int, float):
        return float(value)
    elif type(value) is kind:
        return value
    expected = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
    raise TrainingError(
        f"{path}: '{where}' is {value!r}, expected {expected.get(kind, 'a list of numbers')}"
    )
