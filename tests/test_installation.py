"""The line that installs an extra, for each way in which srdeploy comes to a machine."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from srdeploy import installation

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


def test_extras_of_extras(wheel: Path, tmp_path: Path) -> None:
    place = installed(tmp_path / "env", str(wheel))
    (found,) = metadata.distributions(path=[str(place)])
    assert sorted(installation.requirements_of(found, "train")) == [
        "lightning-fabric>=2.6",
        "onnxscript>=0.7",
        "torch==2.13.*",
    ]


def test_the_pip_of_this_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another one in the PATH would install for another Python."""
    monkeypatch.setattr(installation, "_made_by_uv", lambda: False)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin/python"))
    pip = tmp_path / "bin/pip"
    pip.parent.mkdir()
    pip.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(pip.parent))
    assert installation.install("numpy<2.4", again=True) == (
        "pip install --force-reinstall 'numpy<2.4'"
    )
    assert installation.uninstall("a", "b") == "pip uninstall -y a b"
    monkeypatch.setenv("PATH", "/usr/bin")
    assert installation.install("av") == f"{tmp_path}/bin/python -m pip install av"
    monkeypatch.setattr(installation, "_made_by_uv", lambda: True)
    monkeypatch.setenv("VIRTUAL_ENV", sys.prefix)
    assert installation.install("av") == "uv pip install av"
    monkeypatch.delenv("VIRTUAL_ENV")
    assert installation.uninstall("av") == f"uv pip uninstall --python {tmp_path}/bin/python av"
