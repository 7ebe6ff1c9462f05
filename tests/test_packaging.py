"""One package, one copy of it, and a wheel that holds all of it."""

from __future__ import annotations

import importlib
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import srdeploy

HEAVY = (
    "torch", "onnx", "onnxruntime", "openvino", "tensorrt_rtx", "av", "numpy", "PIL", "rich",
    "jinja2",
)  # fmt: skip


def test_one_copy_of_the_package(repository: Path) -> None:
    assert Path(srdeploy.__file__).resolve() == repository / "__init__.py"
    assert importlib.import_module("srdeploy.spec").__file__ is not None
    assert "__init__" not in sys.modules, "the root was imported under a second name"


@pytest.mark.parametrize("statement", ["import srdeploy", "import srdeploy.cli"])
def test_import_loads_nothing_heavy(statement: str, repository: Path) -> None:
    code = f"import sys; {statement}; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(repository / ".src"), "PATH": ""},
    )
    assert done.stdout.strip() == "[]"


def test_runtime_needs_no_torch(repository: Path) -> None:
    """Every module of the deployable half imports where torch does not exist."""
    code = (
        "import sys, pkgutil, importlib, importlib.util\n"
        "sys.modules['torch'] = None\n"
        "missing = set() if importlib.util.find_spec('pycuda') else {'srdeploy.runtime.cuda',"
        " 'srdeploy.runtime.cuda_launcher'}\n"
        "if not importlib.util.find_spec('tensorrt'):\n"
        "    missing.add('srdeploy.runtime.targets.tensorrt')\n"
        "import srdeploy.runtime, srdeploy.calib, srdeploy.data, srdeploy.report\n"
        "for package in (srdeploy.runtime, srdeploy.calib, srdeploy.data, srdeploy.report):\n"
        "    for module in pkgutil.walk_packages(package.__path__, package.__name__ + '.'):\n"
        "        if module.name not in missing:\n"
        "            importlib.import_module(module.name)\n"
        "import srdeploy.commands.run, srdeploy.commands.build_engine, srdeploy.commands.validate\n"
        "assert 'jinja2' not in sys.modules, 'only who writes a page loads it'\n"
        "print('fine')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(repository / ".src"), "PATH": ""},
    )
    assert done.stdout.strip() == "fine", done.stderr


def test_models_are_listed_in_the_base_install(repository: Path) -> None:
    """Without torch, and without loading anything that takes long."""
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from srdeploy.commands.models import format_models, list_models\n"
        "rows = list_models()\n"
        f"print(len(rows) > 30, [m for m in {HEAVY!r} if sys.modules.get(m)])\n"
        "format_models(rows)\n"
        "print([m for m in sys.modules if m.startswith('srdeploy.models.networks')])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(repository / ".src"), "PATH": ""},
    )
    assert done.stdout.split("\n") == ["True []", "[]", ""]


def tracked(repository: Path) -> set[str]:
    """Files of the package as git has them, or will have them."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=repository,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\n")
    outside = ("tests/", "docs/", "examples/", ".", "bench/results/")
    in_folders = {f for f in listed if "/" in f and not f.startswith(outside)}
    at_root = {f for f in listed if "/" not in f and f.endswith((".py", ".typed"))}
    return {f for f in in_folders | at_root if (repository / f).is_file()}


def test_wheel_holds_the_tree(repository: Path, tmp_path: Path) -> None:
    if not (repository / ".git").exists():
        pytest.skip("the file list comes from git")
    subprocess.run(
        [
            sys.executable,
            "-m",
            "build",
            "--wheel",
            "--no-isolation",
            "--outdir",
            str(tmp_path),
            str(repository),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = {n for n in archive.namelist() if ".dist-info/" not in n}
    assert names == {f"srdeploy/{f}" for f in tracked(repository)}


def test_constraints_pin_every_dependency(repository: Path) -> None:
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    pinned = {
        line.split("==")[0].lower()
        for line in (repository / "constraints.txt").read_text().split("\n")
        if "==" in line
    }
    extras = ("torch", "train", "openvino", "tensorrt-rtx", "dev")
    wanted = [*project["dependencies"]]
    for extra in extras:
        wanted += project["optional-dependencies"][extra]
    names = {w.replace("=", " ").replace(">", " ").replace(";", " ").split()[0] for w in wanted}
    assert {n.lower() for n in names} - {"onnxruntime", "srdeploy[torch]"} <= pinned
