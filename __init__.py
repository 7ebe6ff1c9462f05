"""srdeploy: deploy super-resolution networks at a known quality.

::

    import srdeploy as sr

    onnx = sr.export_onnx("vapsr")
    engine = sr.build_engine(onnx, precision="int8", max_drift=0.05)
    with sr.open_engine(engine) as session:
        big = session.upscale(frames)  # uint8 N×H×W×3
    sr.upscale("in.mp4", "out.mp4", engine=engine, crf=18)
    print(sr.measure_drift(engine, data="Set5").drift)

Importing it is quick: what a function needs is imported when it is first used.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import build_engine, export_onnx, measure_drift, open_engine, upscale
    from .errors import DriftExceeded, OptionError, SrDeployError
    from .spec import Budget

__version__ = "0.1.0"

__all__ = [
    "Budget",
    "DriftExceeded",
    "OptionError",
    "SrDeployError",
    "__version__",
    "build_engine",
    "export_onnx",
    "measure_drift",
    "open_engine",
    "upscale",
]

_MODULES = {
    "Budget": "spec",
    "DriftExceeded": "errors",
    "OptionError": "errors",
    "SrDeployError": "errors",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_MODULES.get(name, 'api')}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
