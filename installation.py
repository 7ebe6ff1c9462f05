"""The line that installs what is missing, as it works for this copy of srdeploy.

How srdeploy came here decides what pip must be told: a checkout and a wheel are named by their
place, an index by the name alone. The record is ``direct_url.json``, which installers leave
beside a package that came from anywhere but an index (PEP 610). Where there is no record, or what
it names is gone, the packages of the extra are named themselves.
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from importlib.metadata import Distribution

PACKAGE = "srdeploy"


_TORCH = ("torch==2.13.*", "onnxscript>=0.7")
EXTRAS: Mapping[str, tuple[str, ...]] = {
    "torch": _TORCH,
    "train": (*_TORCH, "lightning-fabric>=2.6"),
    "kernels": ("triton>=3.7,<3.10",),
    "openvino": ("openvino>=2025.4",),
    "tensorrt": ("tensorrt>=10.3,<12",),
    "tensorrt-rtx": ("tensorrt-rtx>=1.7",),
    "cuda": ("pycuda>=2026.1", "cuda-bindings>=12.6"),
}
"""What the extras of pyproject.toml bring, as it says: sources that were merely copied have neither
that file nor a package's metadata."""

ONNXRUNTIME = (
    "onnxruntime-gpu"
    if platform.machine() in ("x86_64", "AMD64") and sys.platform != "darwin"
    else "onnxruntime"
)
"""What pip calls the ONNX Runtime of the base install on this machine."""

IN_PARTS = ("--force-reinstall", "--no-cache-dir")
"""Options that install a package of TensorRT anew: it is empty, its parts are what it depends on.
The part with the libraries fetches them when it is built, and pip keeps one whose fetch failed."""


def install_extra(name: str, *, again: bool = False) -> str:
    """The command that adds an extra of pyproject.toml, such as ``openvino``.

    Args:
        name: Of the extra.
        again: Whether to install anew what is there and broken.

    Raises:
        ValueError: There is no such extra.
    """
    if name not in EXTRAS:
        raise ValueError(f"srdeploy has no extra '{name}', it has {', '.join(EXTRAS)}")
    if not again:
        return install(*_requirement(name))
    if name.startswith("tensorrt"):
        return install(*EXTRAS[name], options=IN_PARTS)
    return install(*EXTRAS[name], again=True)


def install(*requirements: str, again: bool = False, options: tuple[str, ...] = ()) -> str:
    """The command that installs packages into the environment that srdeploy runs in.

    Args:
        requirements: As pip reads them, ``numpy<2.4``; quoted for the shell where they need it.
        again: Whether to install anew what is there and broken. What it depends on stays as it is,
            and what is missing of that is added.
        options: Further options of pip.
    """
    if again:
        alone = install(*requirements, options=("--force-reinstall", "--no-deps", *options))
        return f"{alone} && {install(*requirements, options=options)}"
    return " ".join([*_installer("install"), *map(shlex.quote, [*options, *requirements])])


def uninstall(*packages: str) -> str:
    """The command that removes packages."""
    yes = [] if _made_by_uv() else ["-y"]
    return " ".join([*_installer("uninstall"), *yes, *packages])


def _requirement(extra: str) -> list[str]:
    """What pip is to be given for an extra."""
    found = _distribution()
    if found is None:  # a checkout that was put into PYTHONPATH
        root = Path(__file__).resolve().parent
        if (root / "pyproject.toml").is_file():
            return ["-e", f"{root}[{extra}]"]
        return list(EXTRAS[extra])
    from urllib.parse import urlsplit
    from urllib.request import url2pathname  # here, as it takes longer than the rest

    came_from = _direct_url(found)
    url, editable = came_from.get("url", ""), came_from.get("dir_info", {}).get("editable")
    if not url:
        return [f"{PACKAGE}[{extra}]"]
    if urlsplit(url).scheme == "file":
        place = Path(url2pathname(urlsplit(url).path))
        if not place.exists():  # a wheel or checkout that was removed
            return list(EXTRAS[extra])
        return [*(["-e"] if editable else []), f"{place}[{extra}]"]
    if source := came_from.get("vcs_info"):
        url = f"{source['vcs']}+{url}@{source.get('commit_id', 'HEAD')}"
    return [f"{PACKAGE}[{extra}] @ {url}"]


def _direct_url(found: Distribution) -> dict[str, Any]:
    """Where a package came from; empty for an index."""
    try:
        record = json.loads(found.read_text("direct_url.json") or "{}")
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


def _distribution() -> Distribution | None:
    from importlib import metadata

    try:
        return metadata.distribution(PACKAGE)
    except metadata.PackageNotFoundError:
        return None


def _made_by_uv() -> bool:
    found = _distribution()
    return found is not None and (found.read_text("INSTALLER") or "").strip() == "uv"


def _installer(command: str) -> list[str]:
    """``pip`` where that one serves this environment, else pip by its Python."""
    python = shlex.quote(sys.executable)
    if _made_by_uv():
        active = os.environ.get("VIRTUAL_ENV") == sys.prefix
        return ["uv", "pip", command, *([] if active else ["--python", python])]
    found = shutil.which("pip")
    if found and Path(found).parent == Path(sys.executable).parent:
        return ["pip", command]
    return [python, "-m", "pip", command]
