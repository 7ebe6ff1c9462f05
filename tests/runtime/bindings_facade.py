"""The real bindings of TensorRT as a façade: every call is held against their signatures.

The bindings import without TensorRT's libraries (see tests/plugins/tensorrt_stubs.py), but none of
their objects can be made then. Here each class is played by :class:`Instance`: an attribute that
the real class lacks is an AttributeError, a call that fits none of the signatures in the real
method's documentation is a TypeError, a property that cannot be set refuses. What a call returns
is made from the signature's return type, or given by the test.
"""

from __future__ import annotations

import re
from types import ModuleType
from typing import Any

SUBCLASSED = ("ILogger", "IProfiler", "IProgressMonitor")
"""Classes that callers derive from: they are the real ones."""

_PARAMETER = re.compile(r"(\w+): (.+?)(?: = (.+))?$")


class Facade(ModuleType):
    """A module of bindings that checks how it is used.

    Attributes:
        returns: (class, method or property) to what it gives; a callable is called.
        calls: (class, method, arguments) in order; a property that is set is ``name=``.
    """

    def __init__(self, real: ModuleType, name: str) -> None:
        super().__init__(name)
        self.__dict__.update(real_module=real, returns={}, calls=[])

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.real_module, name)
        if not isinstance(found, type) or name in SUBCLASSED or hasattr(found, "__members__"):
            return found
        if name == "IOptimizationProfile" or "__init__" in vars(found):
            return lambda *args, **kwargs: self._construct(name, found, args, kwargs)
        return found

    def _construct(self, name: str, real: type, args: Any, kwargs: Any) -> Instance:
        made = Instance(self, name, real)
        if self.returns.get((name, "__init__")) is None:
            check_call(self, f"{name}.__init__", real.__init__, (made, *args), kwargs)
        self.calls.append((name, "__init__", args))
        return made

    def give(self, kind: str, name: str, default: Any, args: tuple[Any, ...] = ()) -> Any:
        """What the test wants to be returned, else the default."""
        value = self.returns.get((kind, name), default)
        return value(*args) if callable(value) else value

    def made_from(self, annotation: str) -> Any:
        """A value of the type that a signature names as its return type."""
        short = annotation.split(".")[-1].split("::")[-1]
        simple = {"None": None, "bool": True, "int": 1, "float": 1.0, "str": "", "tuple": ()}
        if short in simple:
            return simple[short]
        if annotation.startswith("list"):
            return []
        if annotation.startswith("tuple"):
            return ()
        short = short.removesuffix(" ")
        real = getattr(self.real_module, short, None)
        if real is None:  # the C++ name of a class that the module calls otherwise
            real = getattr(self.real_module, short.removeprefix("I"), None)
            short = short.removeprefix("I")
        if isinstance(real, type):
            if hasattr(real, "__members__"):
                return next(iter(real.__members__.values()))
            return Instance(self, short, real)
        raise AssertionError(f"no value for the type {annotation}")


class Instance:
    """An object of a class of the bindings."""

    def __init__(self, facade: Facade, kind: str, real: type) -> None:
        self.__dict__.update(_facade=facade, _kind=kind, _real=real, _set={})

    def __getattr__(self, name: str) -> Any:
        if name in self._set:
            return self._set[name]
        if not hasattr(self._real, name):
            raise AssertionError(f"{self._kind} has no attribute '{name}'")
        attribute = getattr(self._real, name)
        if isinstance(attribute, property):
            wanted = self._facade.returns.get((self._kind, name), attribute)
            if wanted is not attribute:
                return wanted
            text = (attribute.fget.__doc__ or "").strip()
            return self._facade.made_from(text.rpartition("-> ")[2].split("\n")[0])

        def call(*args: Any, **kwargs: Any) -> Any:
            returned = check_call(
                self._facade, f"{self._kind}.{name}", attribute, (self, *args), kwargs
            )
            self._facade.calls.append((self._kind, name, args))
            if (self._kind, name) in self._facade.returns:
                return self._facade.give(self._kind, name, None, args)
            return self._facade.made_from(returned)

        return call

    def __setattr__(self, name: str, value: Any) -> None:
        attribute = getattr(self._real, name, None)
        if not isinstance(attribute, property) or attribute.fset is None:
            raise AssertionError(f"{self._kind}.{name} cannot be set")
        signature = (attribute.fset.__doc__ or "").strip().split("\n")[0]
        match = re.match(r"\(\w+: .+?, \w+: (.+)\) -> None", signature)
        assert match is not None, f"{self._kind}.{name}: no signature in {signature!r}"
        assert fits(self._facade, value, match.group(1), ""), (
            f"{self._kind}.{name} = {value!r}, expected {match.group(1)}"
        )
        self._set[name] = value
        self._facade.calls.append((self._kind, f"{name}=", (value,)))

    def __bytes__(self) -> bytes:
        assert self._kind == "IHostMemory", f"{self._kind} gives no bytes"
        return bytes(self._facade.give(self._kind, "__bytes__", b"content"))


def check_call(facade: Facade, what: str, method: Any, args: Any, kwargs: Any) -> str:
    """Hold a call against the signatures; returns the annotation of what it returns."""
    text = (method.__doc__ or "").strip()
    name = what.rpartition(".")[2]
    signatures = re.findall(rf"^(?:\d+\. )?{name}\((.*)\) -> (.+)$", text, re.MULTILINE)
    signatures = [s for s in signatures if s[0] != "*args, **kwargs"]
    assert signatures, f"{what}: no signature in {text[:200]!r}"
    for parameters, returned in signatures:
        if accepts(facade, split(parameters), args, kwargs):
            return str(returned).strip()
    shown = ", ".join([*(repr(a) for a in args[1:]), *(f"{k}={v!r}" for k, v in kwargs.items())])
    raise AssertionError(f"{what}({shown}) fits none of {[s[0] for s in signatures]}")


def split(parameters: str) -> list[tuple[str, str, str | None]]:
    """Name, type and default of each parameter."""
    parts, depth, current = [], 0, ""
    for letter in parameters:
        depth += (letter in "[(<") - (letter in "])>")
        if letter == "," and not depth:
            parts.append(current.strip())
            current = ""
        else:
            current += letter
    parts.append(current.strip())
    matches = [_PARAMETER.match(part) for part in parts if part]
    assert all(matches), parameters
    return [(m.group(1), m.group(2), m.group(3)) for m in matches if m]


def accepts(facade: Facade, parameters: Any, args: Any, kwargs: Any) -> bool:
    """Whether arguments fit a signature."""
    if len(args) > len(parameters) or set(kwargs) - {name for name, _, _ in parameters}:
        return False
    bound = dict(zip((name for name, _, _ in parameters), args, strict=False)) | kwargs
    return all(
        (name in bound and fits(facade, bound[name], kind, default or ""))
        or (name not in bound and default is not None)
        for name, kind, default in parameters
    )


def fits(facade: Facade, value: Any, kind: str, default: str) -> bool:
    """Whether a value is of the type that an annotation names."""
    if value is None:
        return default == "None"
    short = kind.split(".")[-1].split("::")[-1]
    simple = {
        "SupportsInt": (int,),
        "SupportsFloat": (int, float),
        "int": (int,),
        "float": (int, float),
        "str": (str,),
        "bool": (bool,),
        "Buffer": (bytes, bytearray, memoryview),
        "tuple": (tuple,),
        "list": (list,),
    }
    if short in simple:
        if short != "bool" and isinstance(value, bool):
            return False
        return isinstance(value, simple[short]) or (
            short == "SupportsInt" and hasattr(value, "__int__")
        )
    if kind.startswith("collections.abc.Sequence"):
        return isinstance(value, list | tuple)
    if short == "Dims" and isinstance(value, list | tuple):
        return True
    real = getattr(facade.real_module, short, None) or getattr(
        facade.real_module, short.removeprefix("I"), None
    )
    if real is None:
        raise AssertionError(f"the annotation {kind} is not understood")
    if isinstance(value, Instance):
        return value._real is real
    return isinstance(value, real)
