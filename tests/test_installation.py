"""The line that installs an extra, for each way in which srdeploy comes to a machine."""

from __future__ import annotations

import ast
import json
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from srdeploy import installation
from srdeploy.runtime.doctor.questions import EXTRAS as DOCTOR_EXTRAS
from srdeploy.runtime.targets import target_names

EXTRA = "openvino"
PRINT = "import srdeploy.installation as i; print(i.install_extra('openvino'))"


@pytest.fixture(scope="module")
def wheel(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("a folder")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)]
    subprocess.run([*build, str(repository)], capture_output=True, check=True)
    (made,) = folder.glob("*.whl")
    return made


def installed(target: Path, *words: str) -> Path:
    """A folder that pip has put srdeploy into."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--target", str(target), *words], check=True, capture_output=True)
    return target


def line(place: Path) -> list[str]:
    """The words of the line that the srdeploy in ``place`` gives."""
    done = subprocess.run(
        [sys.executable, "-S", "-c", PRINT],
        env={"PYTHONPATH": str(place), "PATH": ""},
        cwd=place,
        capture_output=True,
        text=True,
        check=True,
    )
    words = shlex.split(done.stdout)
    assert words[:4] == [sys.executable, "-m", "pip", "install"]
    return words[4:]


def takes(words: list[str]) -> bool:
    """Whether pip finds what the words name; dependencies are not looked for."""
    pip = [sys.executable, "-m", "pip", "install", "--dry-run", "--no-deps", "--no-index"]
    build = ["--no-build-isolation", "--ignore-installed", "--quiet"]
    return not subprocess.run([*pip, *build, *words], capture_output=True).returncode


def test_a_wheel(wheel: Path, tmp_path: Path) -> None:
    words = line(installed(tmp_path / "env", str(wheel)))
    assert words == [f"{wheel}[{EXTRA}]"]
    assert takes(words)


def test_a_wheel_that_is_gone(wheel: Path, tmp_path: Path) -> None:
    copy = tmp_path / wheel.name
    copy.write_bytes(wheel.read_bytes())
    place = installed(tmp_path / "env", str(copy))
    copy.unlink()
    assert line(place) == ["openvino>=2025.4"]


def test_an_index(wheel: Path, tmp_path: Path) -> None:
    place = installed(tmp_path / "env", "--find-links", str(wheel.parent), "srdeploy")
    words = line(place)
    assert words == [f"srdeploy[{EXTRA}]"]
    assert takes(["--find-links", str(wheel.parent), *words])


def test_a_checkout_that_was_installed(wheel: Path, repository: Path, tmp_path: Path) -> None:
    place = installed(tmp_path / "env", str(wheel))
    (record,) = place.glob("srdeploy-*.dist-info/direct_url.json")
    for info, words in (
        ({}, [f"{repository}[{EXTRA}]"]),
        ({"editable": True}, ["-e", f"{repository}[{EXTRA}]"]),
    ):
        record.write_text(json.dumps({"url": repository.as_uri(), "dir_info": info}))
        assert line(place) == words
        assert takes(words)
    record.write_text(
        json.dumps(
            {"url": "https://example.org/s.git", "vcs_info": {"vcs": "git", "commit_id": "ab12"}}
        )
    )
    assert line(place) == [f"srdeploy[{EXTRA}] @ git+https://example.org/s.git@ab12"]
    record.write_text("no JSON")
    assert line(place) == [f"srdeploy[{EXTRA}]"]


def test_a_checkout_in_the_path(repository: Path) -> None:
    words = line(repository / ".src")
    assert words == ["-e", f"{repository}[{EXTRA}]"]
    assert takes(words)


def test_sources_without_any_record(repository: Path, tmp_path: Path) -> None:
    """Copied into the path: no index has such an srdeploy, but what its extra brings."""
    place = tmp_path / "copied"
    (place / "srdeploy").mkdir(parents=True)
    for file in ("__init__.py", "installation.py"):
        shutil.copy(repository / file, place / "srdeploy")
    assert line(place) == ["openvino>=2025.4"]


def test_extras_are_those_of_the_project(repository: Path) -> None:
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    declared = project["optional-dependencies"]

    def brought(extra: str) -> set[str]:
        found = set()
        for requirement in declared[extra]:
            inner = requirement.removeprefix("srdeploy[").removesuffix("]")
            found |= brought(inner) if inner in declared else {requirement.partition(";")[0]}
        return found

    wanted = {extra: brought(extra) for extra in declared if extra not in ("dev", "docs")}
    assert {extra: set(brings) for extra, brings in installation.EXTRAS.items()} == wanted


def test_the_onnx_runtime_of_the_base_install_is_that_of_the_project(repository: Path) -> None:
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    names = {line.partition(">")[0] for line in project["dependencies"] if "onnxruntime" in line}
    assert installation.ONNXRUNTIME in names


def test_every_extra_that_is_named_is_there(repository: Path) -> None:
    """In the sources, in the table of the doctor, and by the name of a target."""
    named = {extra.extra for extra in DOCTOR_EXTRAS.values()}
    named |= {name for name in target_names() if name != "onnxruntime"}
    for path in sources(repository):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("install_extra"):
                named |= {a.value for a in node.args if isinstance(a, ast.Constant)}
    assert len(named) >= 6
    assert named <= set(installation.EXTRAS)


def sources(repository: Path) -> list[Path]:
    """What the wheel has."""
    project = tomllib.loads((repository / "pyproject.toml").read_text())
    places = project["tool"]["hatch"]["build"]["targets"]["wheel"]["include"]
    folders = [repository / place.strip("/") for place in places if "." not in place]
    return [*repository.glob("*.py"), *(path for f in folders for path in f.rglob("*.py"))]


@pytest.mark.parametrize("again", [False, True])
def test_an_unknown_extra_is_a_fault_of_the_program(again: bool) -> None:
    with pytest.raises(ValueError, match="no extra 'onnxruntime', it has torch, train"):
        installation.install_extra("onnxruntime", again=again)


def test_a_package_that_is_in_parts_is_installed_anew_with_them() -> None:
    """TensorRT's own is empty, so without what it depends on nothing would be mended."""
    for name in ("tensorrt", "tensorrt-rtx"):
        words = shlex.split(installation.install_extra(name, again=True))
        assert words[-3:] == [*installation.IN_PARTS, *installation.EXTRAS[name]]


def test_the_pip_of_this_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another one in the PATH would install for another Python."""
    monkeypatch.setattr(installation, "_made_by_uv", lambda: False)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin/python"))
    pip = tmp_path / "bin/pip"
    pip.parent.mkdir()
    pip.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(pip.parent))
    assert installation.install("numpy<2.4", again=True) == (
        "pip install --force-reinstall --no-deps 'numpy<2.4' && pip install 'numpy<2.4'"
    )
    assert installation.install_extra("cuda", again=True).startswith(
        "pip install --force-reinstall --no-deps 'pycuda>=2026.1' 'cuda-bindings>=12.6' && pip"
    )
    assert installation.uninstall("a", "b") == "pip uninstall -y a b"
    monkeypatch.setenv("PATH", "/usr/bin")
    assert installation.install("av") == f"{tmp_path}/bin/python -m pip install av"
    monkeypatch.setattr(installation, "_made_by_uv", lambda: True)
    monkeypatch.setenv("VIRTUAL_ENV", sys.prefix)
    assert installation.install("av") == "uv pip install av"
    monkeypatch.delenv("VIRTUAL_ENV")
    assert installation.uninstall("av") == f"uv pip uninstall --python {tmp_path}/bin/python av"
