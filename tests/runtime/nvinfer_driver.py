"""Runs the builder and the runtime on the façade of one version of the bindings.

Run by test_nvinfer_api.py in a process of its own, on stub libraries; prints one JSON object.
``REAL`` is the module, ``NAME`` what it is imported as.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from bindings_facade import Facade, Instance

# The test puts both names in front of this file.
facade = Facade(REAL, NAME)  # noqa: F821
sys.modules[NAME] = facade  # noqa: F821
calls, returns = facade.calls, facade.returns

from srdeploy.errors import EngineError, OutOfDeviceMemory  # noqa: E402
from srdeploy.runtime.layers import described  # noqa: E402
from srdeploy.runtime.nvinfer.build import BuildFailed, BuildJob, build  # noqa: E402
from srdeploy.runtime.nvinfer.execution import OpenedEngine  # noqa: E402
from srdeploy.runtime.nvinfer.library import library_of  # noqa: E402
from srdeploy.runtime.nvinfer.parsing import GraphRefused  # noqa: E402
from srdeploy.spec import (  # noqa: E402
    BuildConfig,
    Compatibility,
    Precision,
    ShapeRange,
    TensorRtOptions,
)

INSPECTED = json.dumps(
    {
        "Layers": [
            {
                "Name": "conv",
                "LayerType": "Convolution",
                "Inputs": [{"Name": "a", "Format/Datatype": "Row major linear FP16"}],
                "Constants": [{"Name": "w", "Datatype": "Half"}],
                "Outputs": [{"Name": "b", "Datatype": "Half"}],
                "Metadata": "[ONNX Layer: conv_first]",
            }
        ]
    }
)
library = library_of(facade)
traits = library.traits
profiles = (ShapeRange(), ShapeRange.static(64, 64, 2))
base = BuildConfig("", "tensorrt", "", Precision.FP16, profiles=profiles)
options = [TensorRtOptions(), TensorRtOptions(workspace_mib=512, optimization_level=5, tf32=True)]
if not traits.ahead_of_time:
    options += [
        TensorRtOptions(compatibility=Compatibility.SAME_CC, version_compatible=True),
        TensorRtOptions(compatibility=Compatibility.AMPERE_PLUS, stripped=True),
    ]
defaults = {
    ("OnnxParser", "num_errors"): 0,
    ("IBuilderConfig", "add_optimization_profile"): 0,
    ("EngineInspector", "get_engine_information"): INSPECTED,
    ("IHostMemory", "__bytes__"): b"an engine",
    ("IPluginRegistry", "all_creators_recursive"): [],
    ("IExecutionContext", "update_device_memory_size_for_shapes"): 4096,
}
found = {"version": library.version, "name": traits.name, "builds": []}
capabilities = ("8.6", "12.0") if traits.ahead_of_time else ()


def outcome(work):
    """What a call gives, or its error."""
    try:
        return work()
    except (RuntimeError, EngineError) as exc:
        return [type(exc).__name__, str(exc), getattr(exc, "hint", "")]


def named(kind):
    return [call[1] for call in calls if call[0] == kind]


for chosen in options:
    returns.clear()
    returns.update(defaults)
    calls.clear()
    library.check_options(replace(base, tensorrt=chosen))
    job = BuildJob(b"graph", replace(base, tensorrt=chosen), capabilities, 1 << 30, b"timed")
    made = build(library, job)
    found["builds"].append(
        {
            "engine": made.engine.decode(),
            "layers": [(layer.name, layer.inputs, layer.nodes) for layer in described(made.log)],
            "timing": made.timing_cache.decode(),
            "flags": [str(a[0].name) for k, n, a in calls if n == "set_flag"],
            "cleared": [str(a[0].name) for k, n, a in calls if n == "clear_flag"],
            "network": [a for k, n, a in calls if n == "create_network"],
            "config": named("IBuilderConfig"),
            "preview": [str(a[0].name) for k, n, a in calls if n == "set_preview_feature"],
            "profiles": [a[1:] for k, n, a in calls if n == "set_shape"],
        }
    )

# A timing cache of another device, and a library that keeps none.
if traits.times_kernels:
    calls.clear()
    returns[("IBuilderConfig", "set_timing_cache")] = False
    returns[("IBuilderConfig", "get_timing_cache")] = None
    made = build(library, BuildJob(b"graph", base, capabilities, 0, b"foreign"))
    taken = [a[0] for _, n, a in calls if n == "create_timing_cache"]
    found["foreign timing cache"] = [[t.decode() for t in taken], made.timing_cache.decode()]
    del returns[("IBuilderConfig", "set_timing_cache")]
    del returns[("IBuilderConfig", "get_timing_cache")]

# The parser refuses two nodes.
returns.update(
    {
        ("OnnxParser", "parse"): False,
        ("OnnxParser", "num_errors"): 2,
        # the C++ name in the signature is an interface; its class is ParserError
        ("OnnxParser", "get_error"): lambda i: Instance(facade, "ParserError", REAL.ParserError),  # noqa: F821
        ("ParserError", "node_name"): "body.0/Gelu",
        ("ParserError", "node_operator"): "Gelu",
        ("ParserError", "desc"): "no importer",
        ("ParserError", "local_function_stack"): ["oca"],
    }
)
found["refused"] = outcome(lambda: build(library, BuildJob(b"graph", base, capabilities)))
returns.clear()
returns.update(defaults)

# No engine: first for want of memory, then for no reason.
attempts = []


def no_memory(_network, _config):
    logger = next(args[0] for kind, name, args in calls if (kind, name) == ("Builder", "__init__"))
    limit = [a[1] for _, n, a in calls if n == "set_memory_pool_limit"][-1]
    attempts.append(limit)
    if limit > 300 << 20:
        logger.log(facade.ILogger.ERROR, "Error Code 2: OutOfMemory (Requested size was 7 bytes.)")
        return None
    return Instance(facade, "IHostMemory", REAL.IHostMemory)  # noqa: F821


calls.clear()
returns[("Builder", "build_serialized_network")] = no_memory
made = build(library, BuildJob(b"graph", base, capabilities, 1 << 30))
found["step down"] = [[limit >> 20 for limit in attempts], made.notes]
returns[("Builder", "build_serialized_network")] = None
found["no engine"] = outcome(lambda: build(library, BuildJob(b"graph", base, capabilities)))
returns[("IBuilderConfig", "add_optimization_profile")] = -1
found["no profile"] = outcome(lambda: build(library, BuildJob(b"graph", base, capabilities)))
assert isinstance(BuildFailed("", ""), RuntimeError)
assert isinstance(GraphRefused("", ""), RuntimeError)

# Opening and running.
returns.clear()
returns.update(defaults)
calls.clear()


class Stream:
    handle = 7

    def wait(self):
        pass


stream = Stream()
graph = b"graph" if traits.strips_weights else b""
opened = OpenedEngine(library, b"engine", graph, traits.version_compatible, b"kernels")
execution = opened.execution(profiles)
found["scratch"] = execution.reshape((1, 180, 320, 3), stream)
execution.reshape((2, 64, 64, 3), stream)
execution.reshape((1, 16, 16, 3), stream)
execution.bind(4096, 8192, 12288, 4096)
found["capturable"] = execution.capturable(stream)
execution.enqueue(stream)
found["times"] = execution.time_layers(stream, 2)
found["cache"] = opened.runtime_cache().decode()
found["context"] = [
    [n, [x for x in a if isinstance(x, int | str | tuple | list)]]
    for k, n, a in calls
    if k == "IExecutionContext" and n != "profiler="
]
found["made"] = sorted({k for k, n, _ in calls if n == "__init__"})
found["outside"] = outcome(lambda: execution.reshape((1, 4000, 4000, 3), stream))
returns[("IExecutionContext", "set_input_shape")] = False
found["shape refused"] = outcome(lambda: execution.reshape((1, 20, 20, 3), stream))
returns[("IExecutionContext", "execute_async_v3")] = False
found["not run"] = outcome(lambda: execution.enqueue(stream))
execution.close()
opened.close()
returns[("Runtime", "deserialize_cuda_engine")] = None
found["not opened"] = outcome(lambda: OpenedEngine(library, b"engine"))


def too_large(_content):
    logger = [args[0] for kind, name, args in calls if (kind, name) == ("Runtime", "__init__")][-1]
    logger.log(facade.ILogger.ERROR, "Requested amount of GPU memory: out of memory")


returns[("Runtime", "deserialize_cuda_engine")] = too_large
found["too large"] = outcome(lambda: OpenedEngine(library, b"engine"))
assert issubclass(OutOfDeviceMemory, EngineError)
# The target itself, on a GPU that is only named.
import importlib  # noqa: E402

import onnx  # noqa: E402
from onnx import helper  # noqa: E402
from srdeploy.errors import BuildError  # noqa: E402
from srdeploy.runtime import gpu_facts  # noqa: E402
from srdeploy.spec import Gpu, Manifest, ModelSpec  # noqa: E402

gpu = Gpu("a GPU", "7.5", "13.0")
gpu_facts.gpus = lambda: (gpu,)
returns.clear()
returns.update(defaults)
target = importlib.import_module(f"srdeploy.runtime.targets.{NAME}").TARGET  # noqa: F821
inputs = [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [1, 3, 4, 4]) for n in "xy"]
node = helper.make_node("oca", ["x"], ["y"], domain="srdeploy")
model = helper.make_model(helper.make_graph([node], "g", inputs[:1], inputs[1:]))
settled = target.settle(base, model.SerializeToString())
found["settled"] = [settled.plugins, settled.gpu and settled.gpu.name]
try:
    target.settle(replace(base, precision=Precision.BF16), b"")
except BuildError as exc:
    found["bf16 on 7.5"] = [exc.message, exc.hint]
here = replace(settled, target_version=target.version())
found["mismatch"] = [
    target.mismatch(here),
    target.mismatch(here, 1),
    target.mismatch(replace(here, target_version="9.0")),
    target.mismatch(replace(here, capabilities=("12.0",), gpu=Gpu("other", "12.0", "13.0"))),
]
stripped = replace(here, tensorrt=TensorRtOptions(stripped=True))
manifest = Manifest(stripped, ModelSpec("vapsr", "vapsr", 2, 4), "", "F.engine", "")
if traits.strips_weights:
    found["stripped"] = outcome(lambda: target._opened(b"engine", manifest, 0))
else:
    diagnoses = REAL.EngineInvalidityDiagnostics  # noqa: F821
    invalid = REAL.EngineValidity.INVALID  # noqa: F821
    for name in ("MALFORMED_ENGINE", "VERSION_MISMATCH"):
        flag = int(getattr(diagnoses, name))
        returns[("Runtime", "get_engine_validity")] = (invalid, flag)
        found[name] = outcome(lambda: target._opened(b"engine", manifest, 0))

json.dump(found, sys.stdout, default=str)
