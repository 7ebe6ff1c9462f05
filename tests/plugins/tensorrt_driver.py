"""Registers the plugins with the real TensorRT bindings and asks them all that a builder asks.

Run by test_tensorrt.py in a process of its own, on stub libraries; prints one JSON object.
The builder's two classes that live in libnvinfer, the plugin registry and the builder of shape
expressions, are stood in for by a dictionary and by arithmetic on integers.
"""

import json
import sys

import tensorrt as trt
import tensorrt.plugin as trtp
from tensorrt.plugin import _lib
from tensorrt.plugin._tensor import SymIntExpr

OPERATIONS = {
    trt.DimensionOperation.SUM: lambda a, b: a + b,
    trt.DimensionOperation.SUB: lambda a, b: a - b,
    trt.DimensionOperation.PROD: lambda a, b: a * b,
    trt.DimensionOperation.FLOOR_DIV: lambda a, b: a // b,
    trt.DimensionOperation.CEIL_DIV: lambda a, b: -(-a // b),
}


class Size(trt.IDimensionExpr):
    """A size, and whether the builder would know it before a shape is given."""

    @classmethod
    def of(cls, value, known):
        size = cls.__new__(cls)  # the base class has no constructor
        size.value, size.known = value, known
        return size

    def is_constant(self):
        return self.known

    def get_constant_value(self):
        return self.value if self.known else -(2**31)


class Expressions:
    def constant(self, value):
        return Size.of(value, True)

    def operation(self, kind, a, b):
        return Size.of(OPERATIONS[kind](a.value, b.value), a.known and b.known)


class Registry:
    def __init__(self):
        self.creators = {}

    def register_creator(self, creator, namespace=""):
        self.creators[namespace, creator.name, creator.plugin_version] = creator
        return True

    def get_creator(self, name, version, namespace=""):
        return self.creators.get((namespace, name, version))


def tensor(shape, dtype=trt.float16, known=()):
    sizes = (trtp.ShapeExpr(Size.of(s, axis in known)) for axis, s in enumerate(shape))
    return trtp.TensorDesc(trtp.ShapeExprs.from_tuple(tuple(sizes)), dtype)


def sizes(desc):
    return [size._expr.value for size in desc.shape_expr]


def ask(plugin, inputs, attributes):
    """Shape, types and kernel of a plugin, through the functions that it registered."""
    known = _lib.QDP_REGISTRY[plugin]
    out = known.register_func(*inputs, *attributes)
    (choice,) = known.autotune_func(*inputs, *attributes, (out,))
    name, ptx, launch, scalars = known.aot_impl_func(*inputs, *attributes, (out,), 0)
    combinations = choice._get_combinations()
    return {
        "shape": sizes(out),
        "dtype": out.dtype.name,
        "types": [[t.name for t in c.types] for c in combinations],
        "layouts": sorted({t.name for c in combinations for t in c.layouts}),
        "kernel": name,
        "ptx": ptx,
        "launch": {key: size._expr.value for key, size in vars(launch).items()},
        "scalars": [size._expr.value for size in scalars],
    }


def refusal(call, *arguments):
    try:
        call(*arguments)
    except Exception as exc:
        return f"{type(exc).__name__}: {exc} {getattr(exc, 'hint', '')}".rstrip()
    return "none"


registry = Registry()
trt.get_plugin_registry = lambda: registry
SymIntExpr._exprBuilder = Expressions()

import numpy as np  # noqa: E402
from srdeploy.plugins import tensorrt_registry  # noqa: E402
from srdeploy.plugins.tensorrt_registry import register_plugins  # noqa: E402

found = {"version": trt.__version__, "numpy": np.__version__}
found["this numpy"] = refusal(register_plugins, "8.6")
tensorrt_registry.check_bindings = lambda: None  # to see the rest, and why it refused
found["plugins"] = register_plugins("8.6")
found["again"] = register_plugins("8.6") == found["plugins"]
found["other gpu"] = refusal(register_plugins, "9.0")
found["creators"] = {
    "::".join(key[:2]): [key[2], [[f.name, f.type.name] for f in creator.field_names]]
    for key, creator in registry.creators.items()
}
dtypes = (trt.float16, trt.bfloat16, trt.float32)
for dtype in dtypes:
    maps = [tensor((2, 50, 33, 60), dtype, known=(3,)) for _ in range(3)]
    bias = tensor((1521, 2), dtype, known=(0, 1))
    found[f"oca {dtype.name}"] = ask("srdeploy::oca", (*maps, bias), (16, 8, 2))
    q = tensor((2, 24, 50, 33), dtype, known=(1,))
    v = tensor((2, 200, 50, 33), dtype, known=(1,))
    f = tensor((100, 24), dtype, known=(0, 1))
    found[f"enla_context {dtype.name}"] = ask("srdeploy::enla_context", (q, v, f), (1e-4,))
    context = tensor((2, 201, 100), trt.float32, known=(1, 2))
    found[f"enla_apply {dtype.name}"] = ask("srdeploy::enla_apply", (q, f, context), (1e-4,))
maps = [tensor((2, 50, 33, 60)) for _ in range(3)]
bias = tensor((1521, 2), known=(0, 1))
found["dynamic channels"] = refusal(ask, "srdeploy::oca", (*maps, bias), (16, 8, 2))
maps = [tensor((2, 50, 33, 60), known=(3,)) for _ in range(3)]
found["heads"] = refusal(ask, "srdeploy::oca", (*maps, bias), (16, 8, 7))
maps = [tensor((2, 50, 33, 60), trt.int8, known=(3,)) for _ in range(3)]
found["int8"] = refusal(ask, "srdeploy::oca", (*maps, bias), (16, 8, 2))


def create(plugin, **attributes):
    """Make the plugin as a parser does, from the node's attributes."""
    kinds = {int: (np.int32, "INT32"), float: (np.float32, "FLOAT32")}
    arrays = [
        (n, np.array([v], kinds[type(v)][0]), kinds[type(v)][1]) for n, v in attributes.items()
    ]
    fields = [trt.PluginField(n, a, getattr(trt.PluginFieldType, kind)) for n, a, kind in arrays]
    made = registry.creators["srdeploy", plugin, "1"].create_plugin(
        plugin,
        "srdeploy",
        trt.PluginFieldCollection(fields),
        trt.TensorRTPhase.BUILD,
        trt.QuickPluginCreationRequest.STRICT_AOT,
    )
    found[f"created {plugin}"] = {name: float(value) for name, value in made.attrs.items()}


for plugin, attributes in (
    ("oca", {"window": 16, "overlap": 8, "heads": 2}),
    ("enla_context", {"eps": 0.25}),
    ("enla_apply", {"eps": 0.25}),
):
    found[f"creating {plugin}"] = refusal(lambda p=plugin, a=attributes: create(p, **a))
json.dump(found, sys.stdout)
