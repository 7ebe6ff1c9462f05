"""Who may import whom, as docs/design.md says it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

EVERYWHERE = {"spec", "errors", "files", "installation", "interruption"}
MAY_IMPORT = {
    "errors": set(),
    "files": {"errors"},
    "installation": set(),
    "interruption": set(),
    "spec": {"errors"},
    "data": EVERYWHERE,
    "plugins": EVERYWHERE,
    "models": EVERYWHERE | {"plugins", "data"},
    "runtime": EVERYWHERE | {"plugins"},
    "validate": EVERYWHERE | {"runtime", "models"},
    "export": EVERYWHERE | {"models", "plugins", "runtime"},
    "calib": EVERYWHERE | {"export", "runtime", "validate", "data"},
    "train": EVERYWHERE | {"models", "validate", "data"},
    # shows what these found; they know of no page, so each runs and is tested without one
    "report": EVERYWHERE | {"calib", "train", "validate"},
}
TOP = set(MAY_IMPORT) | {"api", "commands", "cli", "bench"}
# third-party package -> the only places that import it
HOMES = {
    "av": {"runtime/video", "data/demo_clip.py"},
    "jinja2": {"report/page.py"},
    "filelock": {"runtime/store_lock.py", "train/picture_cache.py"},
    "lightning_fabric": {"train/devices.py"},
    "onnxruntime": {"runtime/onnx_session.py", "runtime/targets/onnxruntime.py"},
    "openvino": {"runtime/targets/openvino.py"},
    "pycuda": {"runtime/cuda.py", "runtime/cuda_launcher.py"},
    "cuda": {"runtime/cuda.py"},
    "tensorrt": {
        "runtime/targets/tensorrt.py",
        "plugins/oca/tensorrt_plugin.py",
        "plugins/enla/tensorrt_plugin.py",
        "plugins/tensorrt_launch.py",
        "plugins/tensorrt_registry.py",
    },
    "tensorrt_rtx": {"runtime/targets/tensorrt_rtx.py"},
    "triton": {
        "plugins/arithmetic.py",
        "plugins/compile.py",
        "plugins/oca/kernel.py",
        "plugins/enla/kernel.py",
    },
    "click": {"cli.py", "console.py", "usage.py"},
    "torch": {
        "models/__init__.py",  # for its annotations alone
        "models/networks",
        "models/weights",
        "plugins/oca/op.py",
        "plugins/oca/launch.py",
        "plugins/enla/op.py",
        "plugins/enla/launch.py",
        "plugins/onnx_translation.py",
        "plugins/torch_ops.py",
        "train",
        "export/trace.py",
        "export/verify.py",
        "validate/torch_session.py",
        "commands/export.py",
    },
}


def sources(repository: Path) -> list[Path]:
    folders = [repository / name for name in TOP]
    found = [p for f in folders if f.is_dir() for p in f.rglob("*.py")]
    return sorted(found + list(repository.glob("*.py")))


def imports(path: Path, repository: Path) -> set[tuple[str, bool]]:
    """(dotted name, inside srdeploy) of every import in a file."""
    package = ("srdeploy", *path.relative_to(repository).with_suffix("").parts)
    parent = package[:-1]
    found: set[tuple[str, bool]] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {(alias.name, alias.name.startswith("srdeploy")) for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level:
            base = parent[: len(parent) - node.level + 1]
            assert base, f"{path} imports from above the package"
            module = [*base, *(node.module.split(".") if node.module else [])]
            names = [[a.name] for a in node.names] if len(module) == 1 else [[]]
            found |= {(".".join([*module, *extra][1:]), True) for extra in names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module != "srdeploy", f"{path}: imports inside are relative"
            found.add((node.module or "", False))
    return found


def test_layers(repository: Path) -> None:
    wrong = []
    for path in sources(repository):
        place = path.relative_to(repository).with_suffix("").parts[0]
        if place not in MAY_IMPORT:
            continue
        for name, inside in imports(path, repository):
            target = name.split(".")[0]
            if inside and target in TOP | EVERYWHERE and target not in MAY_IMPORT[place] | {place}:
                wrong.append(f"{path.relative_to(repository)} imports {name}")
    assert not wrong


@pytest.mark.parametrize("package", sorted(HOMES))
def test_third_party_imports_have_one_home(package: str, repository: Path) -> None:
    wrong = []
    for path in sources(repository):
        relative = path.relative_to(repository).as_posix()
        uses = any(
            n.split(".")[0] == package for n, inside in imports(path, repository) if not inside
        )
        at_home = any(
            relative == home or relative.startswith(f"{home}/") for home in HOMES[package]
        )
        if uses and not at_home and not relative.startswith("bench/"):
            wrong.append(relative)
    assert not wrong


def test_layers_are_complete(repository: Path) -> None:
    packages = {p.parent.name for p in repository.glob("*/__init__.py")}
    assert packages <= TOP | {"tests"}, "a new folder needs its place in the layers"


def test_only_cli_prints_or_exits(repository: Path) -> None:
    wrong = []
    for path in sources(repository):
        if path.name == "cli.py" or path.parent.name == "bench":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                if called in {"print", "sys.exit", "exit", "quit", "os._exit"}:
                    wrong.append(f"{path.relative_to(repository)}: {called}")
    assert not wrong
