"""Checkpoints from strangers: wrappers, prefixes, hostile and damaged files."""

from __future__ import annotations

import dataclasses
import os
import pickle
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from srdeploy.errors import CheckpointError, FetchError, WeightsMissing
from srdeploy.models import PublishedWeights, architecture
from srdeploy.models.vapsr import VapSRConfig
from srdeploy.models.weights import fetch, resolve
from srdeploy.models.weights import state as reading
from srdeploy.models.weights.checkpoint import load_network
from srdeploy.models.weights.state import read_state

CONFIG = VapSRConfig(4, 8, 2, 8)


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return architecture("vapsr").build(CONFIG).state_dict()


def other(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor + 1 for name, tensor in state.items()}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        lambda s: {"params": other(s), "params_ema": s},
        lambda s: {"params": s},
        lambda s: {"state_dict": {f"module.{k}": v for k, v in s.items()}},
        lambda s: {"model": {"params_ema": s}, "epoch": 3},
        lambda s: s | {"step": 7},
        lambda s: {k.replace("atten_branch", "spatial_gating_unit"): v for k, v in s.items()},
    ],
    ids=["plain", "ema", "params", "module", "nested", "beside numbers", "old names"],
)
def test_wrappers(state, wrap, tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    torch.save(wrap(state), path)
    network, spec = load_network(path, "net.pth")
    assert all(torch.equal(v, state[k]) for k, v in network.state_dict().items())
    assert (spec.architecture, spec.scale, spec.weights) == ("vapsr", 4, "net.pth")
    assert not network.training


def test_safetensors_and_half_precision(state, tmp_path: Path) -> None:
    save_file(state, tmp_path / "a.safetensors")
    save_file({k: v.half() for k, v in state.items()}, tmp_path / "b.safetensors")
    whole, first = load_network(tmp_path / "a.safetensors", "a")
    half, second = load_network(tmp_path / "b.safetensors", "b")
    assert first.weights_sha256 != second.weights_sha256
    for name, tensor in half.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, whole.state_dict()[name].half().float())


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


def test_pickle_with_code_is_refused(tmp_path: Path) -> None:
    path, crater = tmp_path / "bomb.pth", tmp_path / "crater"
    torch.save({"params": Bomb(crater)}, path)
    with pytest.raises(CheckpointError, match="could run code") as caught:
        read_state(path)
    assert caught.value.hint
    assert not crater.exists()
    (tmp_path / "raw.pth").write_bytes(pickle.dumps(Bomb(crater)))
    with pytest.raises(CheckpointError):
        read_state(tmp_path / "raw.pth")
    assert not crater.exists()


@pytest.mark.parametrize(
    "content",
    [b"", b"this is a text file\n", b"PK\x03\x04 cut", b"\x80\x02garbage", os.urandom(5000)],
    ids=["empty", "text", "cut zip", "cut pickle", "noise"],
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_files_that_are_no_checkpoints(content: bytes, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"net{suffix}"
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        read_state(path)
    assert str(path) in caught.value.message


def test_truncated_checkpoint(state, tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    torch.save(state, path)
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(CheckpointError):
        read_state(path)


def test_other_networks_and_wrong_tensors(state, tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    torch.save({"features.0.weight": torch.zeros(3, 3)}, path)
    with pytest.raises(CheckpointError, match="does not know"):
        load_network(path, "")
    torch.save([1, 2], path)
    with pytest.raises(CheckpointError, match="named tensors"):
        load_network(path, "")
    missing = {k: v for k, v in state.items() if k != "body.1.proj_2.bias"}
    torch.save(missing, path)
    with pytest.raises(CheckpointError, match=r"body\.1\.proj_2\.bias.*missing"):
        load_network(path, "")
    torch.save(state | {"extra.weight": torch.zeros(2)}, path)
    with pytest.raises(CheckpointError, match=r"extra\.weight.*unexpected"):
        load_network(path, "")
    torch.save(state | {"body.1.proj_2.bias": torch.zeros(9)}, path)
    with pytest.raises(CheckpointError, match=r"body\.1\.proj_2\.bias.*\(9,\).*\(8,\)"):
        load_network(path, "")
    torch.save(state | {"conv_body.bias": torch.full((8,), float("nan"))}, path)
    with pytest.raises(CheckpointError, match=r"conv_body\.bias.*NaN"):
        load_network(path, "")
    with pytest.raises(CheckpointError, match="no file"):
        load_network(tmp_path / "absent.pth", "")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda t: t.to_sparse(), "sparse"),
        (lambda t: t.to(torch.complex64), "complex64"),
        (lambda t: t.bool(), "bool"),
        (lambda t: t.to(torch.float8_e4m3fn), "float8"),
        (lambda t: t.to("meta"), "meta"),
        (lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8), "qint8"),
        (lambda t: torch.zeros(1).expand(10**12), "holds fewer"),
    ],
    ids=["sparse", "complex", "bool", "float8", "meta", "quantised", "expanded"],
)
def test_tensors_that_are_no_plain_numbers(state, make, says: str, tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save({**state, "conv_body.bias": make(state["conv_body.bias"])}, path)
        with pytest.raises(CheckpointError, match=r"conv_body\.bias") as caught:
            load_network(path, "")
    assert says in caught.value.message


@pytest.mark.parametrize("start", [b"", b"PK", b"\x80\x02"], ids=["zeros", "zip", "pickle"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_two_gigabytes_of_nothing(start: bytes, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"net{suffix}"
    path.write_bytes(start)
    os.truncate(path, (2 << 30) - 1)  # takes no room on the disk
    with pytest.raises(CheckpointError, match="not a") as caught:
        read_state(path)
    assert "could run code" not in caught.value.message


def test_averaged_models_and_names_given_twice(state, tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    averaged = {f"module.{k}": v for k, v in state.items()} | {"n_averaged": torch.tensor(3)}
    torch.save(averaged, path)
    assert load_network(path, "")[1].architecture == "vapsr"
    torch.save({"params_ema": {}, "params": {"other.weight": torch.zeros(2)}}, path)
    with pytest.raises(CheckpointError):
        load_network(path, "")
    old = "body.0.spatial_gating_unit.pointwise.weight"
    new = "body.0.atten_branch.pointwise.weight"
    torch.save({**state, old: state[new]}, path)
    with pytest.raises(CheckpointError, match=f"{new}' twice"):
        load_network(path, "")


def test_a_name_cannot_forge_a_message(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    torch.save({"x\x1b[31m\nerror: forged" + "y" * 10_000: torch.zeros(1)}, path)
    with pytest.raises(CheckpointError) as caught:
        load_network(path, "")
    assert "\n" not in caught.value.message
    assert "\x1b" not in caught.value.message
    assert len(caught.value.message) < 500


def test_size_limit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(reading, "LARGEST_BYTES", 1000)
    (tmp_path / "big.pth").write_bytes(bytes(1001))
    with pytest.raises(CheckpointError, match="GiB"):
        read_state(tmp_path / "big.pth")


def test_resolution_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The cache comes before the bundle, and nothing is ever made up."""
    monkeypatch.setenv("SRDEPLOY_CACHE", str(tmp_path))
    monkeypatch.setattr(resolve, "bundled_weights", lambda name: None)
    with pytest.raises(WeightsMissing, match="vapsr x4") as caught:
        resolve.find("vapsr", 4)
    assert "fetch vapsr-x4" in caught.value.hint
    assert "--weights" in caught.value.hint
    bundle = tmp_path / "bundle.safetensors"
    monkeypatch.setattr(
        resolve, "bundled_weights", lambda name: bundle if name == "vapsr-s-x4" else None
    )
    assert resolve.find("vapsr", 4).path == bundle
    larger = tmp_path / "larger.safetensors"
    monkeypatch.setattr(resolve, "bundled_weights", {"vapsr-x4": larger, "vapsr-s-x4": bundle}.get)
    for better, wanted in (({"Set5": 31.0}, bundle), ({"Set5": 32.0}, larger)):
        psnr = {"vapsr-x4": better, "vapsr-s-x4": {"Set5": 31.5}}
        monkeypatch.setattr(resolve, "bundled_psnr", psnr.__getitem__)
        assert resolve.find("vapsr", 4).path == wanted
    monkeypatch.setattr(
        resolve, "cached", lambda w: tmp_path / w.file_name if "VapSR-S" in w.url else None
    )
    assert resolve.find("vapsr", 4).label == "official VapSR-S.pth"


def test_random_weights_say_so() -> None:
    _, spec = resolve.random_network("vapsr-s", 4)
    assert spec.random_weights
    assert spec.weights == "random"


def test_fetch_resumes_and_checks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """From a server of our own: whole, resumed after a break, and of another content."""
    import hashlib
    import http.server
    import threading

    content = os.urandom(700_000)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            start = int(asked.removeprefix("bytes=").split("-")[0]) if asked else 0
            ranges.append(start)
            self.send_response(206 if asked else 200)
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            self.wfile.write(content[start:])

        def log_message(self, *args) -> None:
            pass

    ranges: list[int] = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        monkeypatch.setenv("SRDEPLOY_CACHE", str(tmp_path))
        url = f"http://127.0.0.1:{server.server_port}/net.pth"
        weights = PublishedWeights(url, hashlib.sha256(content).hexdigest(), "none")
        (tmp_path / "weights").mkdir()
        (tmp_path / "weights" / "net.pth.partial").write_bytes(content[:1000])
        seen: list[int] = []
        path = fetch.fetch(weights, lambda done, total: seen.append(done))
        assert path.read_bytes() == content
        assert ranges == [1000]
        assert seen[-1] == len(content)
        assert fetch.cached(weights) == path
        path.write_bytes(b"changed")
        with pytest.raises(FetchError, match="not the official file"):
            fetch.cached(weights)
        path.unlink()
        wrong = dataclasses.replace(weights, sha256="0" * 64)
        with pytest.raises(FetchError, match="another file"):
            fetch.fetch(wrong)
        assert list((tmp_path / "weights").iterdir()) == []
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    with pytest.raises(FetchError, match="could not be fetched"):
        fetch.fetch(weights)
