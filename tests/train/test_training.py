"""Training: gradients, sampling, resuming, and what stops it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from srdeploy import data
from srdeploy.commands.train import train_model
from srdeploy.errors import DatasetError, TrainingError
from srdeploy.models import architecture
from srdeploy.models.vapsr import VapSRConfig
from srdeploy.models.weights.checkpoint import load_network
from srdeploy.train import loop
from srdeploy.train.data import PatchSampler, find_pictures
from srdeploy.train.depthwise import FastDepthwise, speed_up
from srdeploy.train.loop import train
from srdeploy.train.objectives import AgainstTruth
from srdeploy.train.recipe import Recipe
from srdeploy.validate.resize import shrink
from torch import nn


@settings(max_examples=40)
@given(
    kernel=st.sampled_from([3, 5, 7]),
    dilation=st.sampled_from([1, 2, 3]),
    bias=st.booleans(),
    size=st.tuples(
        st.integers(1, 3), st.sampled_from([8, 16, 24]), st.integers(1, 20), st.integers(1, 30)
    ),
)
def test_cheap_passes_equal_pytorch(kernel, dilation, bias, size) -> None:
    torch.manual_seed(0)
    padding = kernel // 2 * dilation
    plain = nn.Conv2d(
        size[1], size[1], kernel, padding=padding, dilation=dilation, groups=size[1], bias=bias
    )
    fast = nn.Sequential(
        nn.Conv2d(
            size[1], size[1], kernel, padding=padding, dilation=dilation, groups=size[1], bias=bias
        )
    )
    fast[0].load_state_dict(plain.state_dict())
    assert speed_up(fast) == 1
    assert isinstance(fast[0], FastDepthwise)
    grads = []
    for net in (plain, fast):
        x = torch.randn(size, generator=torch.Generator().manual_seed(1)).requires_grad_()
        y = net(x)
        y.backward(torch.randn(y.shape, generator=torch.Generator().manual_seed(2)))
        with torch.no_grad():
            again = net(x)
        grads.append([y.detach(), again, x.grad, *(p.grad for p in net.parameters())])
    for expected, got in zip(*grads, strict=True):
        assert (expected - got).abs().max() <= 1e-4 * expected.abs().max()


def test_cheap_passes_in_bfloat16_round_once() -> None:
    torch.manual_seed(0)
    fast = nn.Sequential(nn.Conv2d(16, 16, 5, padding=6, dilation=3, groups=16))
    assert speed_up(fast) == 1
    x = torch.randn(2, 16, 17, 23).bfloat16()
    wanted = x.float().requires_grad_()
    exact = fast(wanted)
    grad = torch.randn(exact.shape).bfloat16()
    exact.backward(grad.float())
    weights = [p.grad for p in fast.parameters()]
    fast.zero_grad(set_to_none=True)
    given = x.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        y = fast(given)
    y.backward(grad)
    assert torch.equal(y, exact.bfloat16())
    assert torch.equal(given.grad, wanted.grad.bfloat16())
    for got, wanted_grad in zip((p.grad for p in fast.parameters()), weights, strict=True):
        assert torch.allclose(got, wanted_grad, rtol=1e-4, atol=1e-4)


def test_gradients_do_not_depend_on_the_number_of_threads() -> None:
    torch.manual_seed(0)
    fast = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=8))
    assert speed_up(fast) == 1
    x = torch.randn(5, 8, 12, 12)
    found = []
    before = torch.get_num_threads()
    for threads in (1, 3):
        torch.set_num_threads(threads)
        fast.zero_grad(set_to_none=True)
        fast(x).square().sum().backward()
        found.append(fast[0].weight.grad.clone())
    torch.set_num_threads(before)
    assert torch.equal(*found)


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(8, 8, 3, padding=1),
        nn.Conv2d(8, 8, 3, padding=1, groups=8, stride=2),
        nn.Conv2d(8, 8, 3, groups=8),
        nn.Conv2d(8, 16, 3, padding=1, groups=8),
        nn.Conv2d(8, 8, 3, padding=1, groups=8, padding_mode="reflect"),
        nn.Conv2d(12, 12, 3, padding=1, groups=12),
        nn.Conv2d(8, 8, 9, padding=4, groups=8),
    ],
)
def test_other_convolutions_are_left_alone(conv: nn.Conv2d) -> None:
    assert speed_up(nn.Sequential(conv)) == 0
    assert type(conv) is nn.Conv2d


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of pictures of every kind, two of which cannot be used."""
    folder = tmp_path / "pictures"
    (folder / "deeper").mkdir(parents=True)
    rng = np.random.default_rng(0)
    smooth = rng.integers(0, 256, (12, 14, 3), dtype=np.uint8).repeat(6, 0).repeat(6, 1)
    Image.fromarray(smooth).save(folder / "a.png")
    Image.fromarray(smooth[:, ::-1]).convert("L").save(folder / "deeper" / "grey.jpg")
    Image.fromarray(smooth).convert("P").save(folder / "palette.png")
    Image.fromarray(smooth).convert("CMYK").save(folder / "cmyk.jpg")
    Image.fromarray(smooth[:20, :20]).save(folder / "small.png")
    (folder / "corrupt.png").write_bytes(b"\x89PNG\r\n\x1a\n....")
    (folder / "notes.txt").write_text("not a picture")
    return folder


def test_sampler_pairs_are_shrunk_patches(pictures: Path) -> None:
    sampler = PatchSampler(find_pictures([pictures]), scale=2, patch=16)
    assert len(sampler.pairs) == 4
    assert len(sampler.skipped) == 2
    low, high = sampler.batch(3, 5)
    assert (low.shape, high.shape) == ((5, 3, 16, 16), (5, 3, 32, 32))
    again = PatchSampler(find_pictures([pictures]), 2, 16).batch(3, 5)
    assert torch.equal(again[0], low)
    assert torch.equal(again[1], high)
    assert not torch.equal(sampler.batch(4, 5)[0], low)
    for l, h in zip(low, high, strict=True):  # away from the borders, LR is HR shrunk
        made = shrink((h * 255).round().byte().permute(1, 2, 0).numpy(), 2)
        ours = (l * 255).round().byte().permute(1, 2, 0).numpy()
        assert np.abs(made.astype(int) - ours)[3:-3, 3:-3].max() <= 1


def test_sampler_refuses_what_holds_nothing(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="there is no"):
        find_pictures([tmp_path / "absent"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="no pictures"):
        find_pictures([tmp_path / "empty"])
    with pytest.raises(DatasetError, match="can be used"):
        PatchSampler(find_pictures([pictures]), scale=4, patch=48)


def network() -> nn.Module:
    torch.manual_seed(0)
    return architecture("vapsr").build(VapSRConfig(2, 8, 1, 8))


RECIPE = Recipe(steps=8, batch=2, patch=16, warmup=2, decay=3, validate_every=4)


@pytest.fixture
def sampler(pictures: Path) -> PatchSampler:
    return PatchSampler(find_pictures([pictures]), 2, 16)


def validation(sampler: PatchSampler) -> list:
    return [("a", *sampler.pairs[0])]


def test_resumed_run_equals_an_uninterrupted_one(sampler, tmp_path: Path, monkeypatch) -> None:
    """Killed after step 4 of 8, in the middle of a step, and started again."""
    whole, parts = tmp_path / "whole.pth", tmp_path / "parts.pth"
    lines: list[str] = []
    first = train(network(), sampler, RECIPE, whole, validation(sampler), lines.append)

    class Killed(BaseException):
        pass

    original = loop.take_step

    def dying(run, samples, recipe, step, objective):
        if step == 6:
            raise Killed
        return original(run, samples, recipe, step, objective)

    monkeypatch.setattr(loop, "take_step", dying)
    with pytest.raises(Killed):
        train(network(), sampler, RECIPE, parts, validation(sampler), lines.append)
    monkeypatch.setattr(loop, "take_step", original)
    torch.manual_seed(99)
    second = train(network(), sampler, RECIPE, parts, validation(sampler), lines.append)
    assert second == first
    a, b = (torch.load(p, weights_only=True) for p in (whole, parts))
    for key in ("params", "params_ema"):
        assert all(torch.equal(a[key][name], b[key][name]) for name in a[key])
    assert lines[-1].startswith("step 8:")


def with_a_bad_step(at: int, objective=AgainstTruth) -> object:
    """An objective that overflows in one step."""

    class Overflowing(objective):
        def begin_step(self, step: int) -> None:
            super().begin_step(step)
            self.step = step

        def __call__(self, upscaled, low, high):
            loss = super().__call__(upscaled, low, high)
            return loss * float("inf") if self.step == at else loss

    return Overflowing()


def test_not_a_number_stops_and_keeps_the_last_checkpoint(sampler, tmp_path) -> None:
    path = tmp_path / "c.pth"
    with pytest.raises(TrainingError, match="step 7 gave no finite loss") as caught:
        train(network(), sampler, RECIPE, path, [], lambda _: None, with_a_bad_step(6))
    assert "rate" in caught.value.hint
    assert "the loss was inf of a finite output" in caught.value.message
    assert all(name in caught.value.message for name in map(shown, sampler.names_of(6, 2)))
    kept = torch.load(path, weights_only=True)
    assert kept["step"] == 4
    assert all(tensor.isfinite().all() for tensor in kept["params"].values())
    resumed = train(network(), sampler, RECIPE, path, validation(sampler), lambda _: None)
    whole = tmp_path / "whole.pth"
    assert resumed == train(network(), sampler, RECIPE, whole, validation(sampler), lambda _: None)


def shown(name: str) -> str:
    return Path(name).name


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        ("weight", "the weight body.0.proj_1.weight held 1 NaN already before the step"),
        ("output", "body.0.proj_2 (Conv2d) gave 1 NaN"),
        ("gradient", "the gradient of what body.0.atten_branch (LargeKernelAttention) gave held"),
    ],
)
def test_the_first_thing_that_is_not_finite_is_named(sampler, tmp_path, spoil, said) -> None:
    net = network()

    class Spoiled(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            return grad * float("nan")

    def output(module, inputs, made):
        made = made.clone()
        made[0, 0, 0, 0] = float("nan")
        return made

    if spoil == "weight":
        with torch.no_grad():
            net.body[0].proj_1.weight[0, 0] = float("nan")
    elif spoil == "output":
        net.body[0].proj_2.register_forward_hook(output)
    else:
        net.body[0].proj_2.register_forward_hook(lambda module, inputs, made: Spoiled.apply(made))
    with pytest.raises(TrainingError) as caught:
        train(net, sampler, RECIPE, tmp_path / "c.pth", [], lambda _: None)
    assert said in caught.value.message
    assert not (tmp_path / "c.pth").exists()


def test_checkpoints_of_others_are_not_overwritten(sampler, tmp_path: Path) -> None:
    path = tmp_path / "c.pth"
    path.write_bytes(b"something else")
    with pytest.raises(TrainingError, match="not a checkpoint"):
        train(network(), sampler, RECIPE, path, [], lambda _: None)
    assert path.read_bytes() == b"something else"
    assert [p.name for p in tmp_path.iterdir() if "partial" in p.name] == []


def test_training_learns(sampler, tmp_path: Path) -> None:
    recipe = Recipe(steps=40, batch=4, patch=16, warmup=2, decay=10, validate_every=40, ema=0.9)
    untrained = loop.evaluate(network(), validation(sampler), 2)["mean"]
    scores = train(
        network(), sampler, recipe, tmp_path / "c.pth", validation(sampler), lambda _: None
    )
    assert scores["mean"] > untrained + 3


def test_a_run_starts_from_a_checkpoint(tmp_path: Path) -> None:
    """Its EMA after one cautious step is the checkpoint; one with nothing in common is refused."""
    weights = data.bundled_weights("vapsr-tiny-x4")
    options = {
        "scale": 4,
        "folders": [data.weights_folder().parent / "pictures"],
        "validation": None,
        "quick": True,
        "threads": None,
        "weights": weights,
        "say": lambda _: None,
    }
    done = train_model(
        "vapsr-tiny", folder=tmp_path / "run", steps=1, batch=1, rate=1e-8, **options
    )
    before, _ = load_network(weights, "")
    after, _ = load_network(Path(done["weights"]), "")
    for name, tensor in before.state_dict().items():
        assert torch.allclose(tensor, after.state_dict()[name], atol=1e-3)
    with pytest.raises(TrainingError, match="fits 1 of the 140 tensors"):
        train_model("vapsr-s", folder=tmp_path / "other", **options)
    assert not (tmp_path / "other").exists()


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
from srdeploy.models import architecture
from srdeploy.models.vapsr import VapSRConfig
from srdeploy.train.data import PatchSampler, find_pictures
from srdeploy.train.loop import Recipe, train

def report(line):
    if line.startswith(f"step {sys.argv[3]}:"):
        os.kill(os.getpid(), signal.SIGKILL)

torch.set_num_threads(1)
torch.manual_seed(0)
network = architecture("vapsr").build(VapSRConfig(2, 8, 1, 8))
sampler = PatchSampler(find_pictures([Path(sys.argv[1])]), 2, 16)
recipe = Recipe(steps=9, batch=2, patch=16, warmup=2, decay=3, validate_every=2)
train(network, sampler, recipe, Path(sys.argv[2]), [("a", *sampler.pairs[0])], report)
"""


def test_killed_and_resumed_it_ends_in_the_same_weights(
    pictures: Path, tmp_path: Path, repository: Path
) -> None:
    """The optimiser's state and both sets of weights, bit for bit."""
    environment = {**os.environ, "PYTHONPATH": str(repository / ".src"), "OMP_NUM_THREADS": "1"}

    def run(checkpoint: Path, kill_at: str) -> int:
        command = [sys.executable, "-c", KILLED, str(pictures), str(checkpoint), kill_at]
        done = subprocess.run(command, env=environment, capture_output=True, check=False)
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        return done.returncode

    whole, cut = tmp_path / "whole.pth", tmp_path / "cut.pth"
    assert run(whole, "never") == 0
    assert run(cut, "4") == -signal.SIGKILL
    assert run(cut, "never") == 0
    expected, resumed = (torch.load(path, weights_only=True) for path in (whole, cut))
    assert expected["step"] == resumed["step"] == 9
    for part in ("params", "params_ema"):
        for name, tensor in expected[part].items():
            assert torch.equal(tensor, resumed[part][name]), name
    moments = zip(
        expected["optimiser"]["state"].values(), resumed["optimiser"]["state"].values(), strict=True
    )
    for one, other in moments:
        assert all(torch.equal(one[key], other[key]) for key in one)
