"""The torch ops against what the papers write: values, gradients, shapes, memory, bad input."""

from __future__ import annotations

import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from srdeploy.bench.paper_ops import enla_written, oca_sdpa, oca_unfolded
from srdeploy.bench.plugin_memory import extra_bytes
from srdeploy.errors import PluginError, SrDeployError
from srdeploy.plugins import op_names
from srdeploy.plugins.enla.op import enla
from srdeploy.plugins.oca import op as oca_module
from srdeploy.plugins.oca.contract import check
from srdeploy.plugins.oca.op import oca

sizes = st.integers(1, 19)


def randn(*shape: int, **kwargs) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)), **kwargs)


@given(
    n=st.integers(1, 3),
    height=sizes,
    width=sizes,
    window=st.integers(2, 8),
    half_overlap=st.integers(0, 4),
    heads=st.integers(1, 3),
    head_dim=st.integers(1, 5),
)
def test_oca_is_what_the_paper_writes(
    n, height, width, window, half_overlap, heads, head_dim
) -> None:
    """Any size, whole windows or not; any window, overlap and heads."""
    overlap = 2 * min(half_overlap, window // 2)
    channels = heads * head_dim
    q, k, v = (randn(n, height, width, channels + i).double()[..., :channels] for i in range(3))
    bias = randn((2 * window + overlap - 1) ** 2, heads).double()
    expected = oca_unfolded(q, k, v, bias, window, overlap, heads)
    got = oca(q, k, v, bias, window, overlap, heads)
    assert torch.allclose(got, expected, rtol=0, atol=1e-12)
    assert torch.allclose(oca_sdpa(q, k, v, bias, window, overlap, heads), expected, atol=1e-9)


@given(
    n=st.integers(1, 3),
    height=sizes,
    width=sizes,
    embedded=st.integers(1, 9),
    channels=st.integers(1, 9),
    features=st.integers(1, 20),
)
def test_enla_is_what_the_paper_writes(n, height, width, embedded, channels, features) -> None:
    q, k = (randn(n, embedded, height, width + i).double()[..., :width] for i in range(2))
    v = randn(n, channels, height, width).double()
    projection = randn(features, embedded).double()
    expected = enla_written(q, k, v, projection, 1e-4)
    assert torch.allclose(enla(q, k, v, projection, 1e-4), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("n", "height", "width", "channels", "window", "overlap", "heads"),
    [(1, 4, 6, 4, 2, 2, 2), (2, 5, 3, 4, 4, 2, 1), (1, 3, 3, 2, 2, 0, 1)],
)
def test_oca_gradients(n, height, width, channels, window, overlap, heads, monkeypatch) -> None:
    monkeypatch.setattr(oca_module, "SCORES_AT_ONCE", 100)  # several parts
    maps = [randn(n, height, width, channels).double().requires_grad_() for _ in range(3)]
    bias = randn((2 * window + overlap - 1) ** 2, heads).double().requires_grad_()
    sizes = (window, overlap, heads)
    assert torch.autograd.gradcheck(lambda *t: oca(*t, *sizes), (*maps, bias))


def test_enla_gradients(monkeypatch) -> None:
    monkeypatch.setattr("srdeploy.plugins.enla.op.PIXELS_AT_ONCE", 5)
    q, k, v = (randn(2, c, 4, 3).double().requires_grad_() for c in (3, 3, 5))
    projection = randn(6, 3).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda *t: enla(*t, 1e-4), (q, k, v, projection))


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (0, 3, 1, 2)], ids=["dense", "permuted"])
def test_they_are_proper_torch_ops(order) -> None:
    """Fake shapes and strides, autograd registration and schemas, as PyTorch checks them."""

    def strided(*shape: int) -> torch.Tensor:
        inverse = [order.index(axis) for axis in range(4)]
        x = randn(*(shape[axis] for axis in order)).permute(inverse)
        assert x.shape == shape
        return x.requires_grad_()

    torch.library.opcheck(oca, (*(strided(1, 8, 8, 4) for _ in range(3)), randn(81, 2), 4, 2, 2))
    q, k, v = (strided(1, c, 4, 6) for c in (4, 4, 6))
    torch.library.opcheck(enla, (q, k, v, randn(4, 8).T, 1e-4))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_autocast_does_not_reach_inside(dtype) -> None:
    maps = [randn(1, 9, 11, 12 + i).to(dtype)[..., :12] for i in range(3)]
    turned = [3 * t.permute(0, 3, 1, 2) for t in maps]
    for op, tensors, rest in (
        (oca, maps, (randn(81, 2).to(dtype), 4, 2, 2)),
        (enla, turned, (randn(64, 12).to(dtype), 1e-4)),
    ):
        leaves = [t.detach().requires_grad_() for t in tensors]
        plain = op(*leaves, *rest)
        wanted = torch.autograd.grad(plain.float().square().sum(), leaves)
        with torch.autocast("cpu", torch.bfloat16):
            got = op(*leaves, *rest)
            found = torch.autograd.grad(got.float().square().sum(), leaves)
        assert torch.equal(got, plain)
        for gradient, expected in zip(found, wanted, strict=True):
            assert torch.isfinite(gradient).all()
            assert (gradient - expected).abs().max() <= 0.02 * expected.abs().max()


def test_compiled_networks_give_the_same() -> None:
    """The ops pass through torch.compile whole; strides are those that it was promised."""
    arguments = [randn(1, 4, 6, 8).requires_grad_() for _ in range(3)]
    projection = randn(16, 4)

    def layer(q, k, v):
        x = [t.permute(0, 2, 3, 1) for t in (q, k, v)]
        y = oca(*x, bias, 4, 2, 2).permute(0, 3, 1, 2)
        return enla(q, k, y.contiguous() + v, projection, 1e-4).sum(1)

    bias = randn(81, 2)
    compiled = torch.compile(layer, backend="aot_eager")
    assert torch.allclose(compiled(*arguments), layer(*arguments), atol=1e-6)
    compiled(*arguments).sum().backward()
    assert all(torch.isfinite(t.grad).all() for t in arguments)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sums_are_float32(dtype) -> None:
    """Where 16-bit features and sums would overflow or lose all but their first digits."""
    q, k = (6**0.5 * torch.nn.functional.normalize(randn(1, 64, 64, 64 + i), dim=1) for i in (0, 1))
    v, projection = randn(1, 8, 64, 64).abs() * 50, randn(128, 64)
    arguments = [t.to(dtype) for t in (q, k[..., :64], v, projection)]
    exact = enla_written(*(t.double() for t in arguments), 1e-4)
    got = enla(*arguments, 1e-4)
    assert got.dtype == dtype
    assert ((got - exact).abs() / exact.abs()).max() < torch.finfo(dtype).eps


def test_memory_of_oca_does_not_grow_with_the_overlap() -> None:
    """Beyond the output: less than what the keys of all windows alone would take."""
    maps = [randn(1, 96, 96, 24) for _ in range(3)]
    extra = {}
    for overlap in (0, 4, 8, 16):
        bias = randn((2 * 16 + overlap - 1) ** 2, 2)
        extra[overlap] = extra_bytes(lambda: oca(*maps, bias, 16, overlap, 2))  # noqa: B023
    assert extra[16] <= 1.1 * max(extra[0], extra[4], extra[8]), extra
    unfolded = extra_bytes(lambda: oca_unfolded(*maps, randn(47**2, 2), 16, 16, 2))
    assert extra[16] < unfolded / 2, (extra, unfolded)


def test_memory_of_enla_does_not_grow_with_the_features() -> None:
    """Beyond the output, what is held does not depend on the number of pixels."""
    projection = randn(64, 8)
    extra = {}
    for edge in (256, 512, 1024):
        q, v = randn(1, 8, edge, edge), randn(1, 8, edge, edge)
        extra[edge] = extra_bytes(lambda: enla(q, q, v, projection, 1e-4))  # noqa: B023
    assert extra[1024] <= 1.1 * extra[256], extra
    assert extra[1024] < 1024 * 1024 * 64 * 4 / 10


def maps(*shape: int, dtype=torch.float32) -> dict[str, torch.Tensor]:
    return {name: torch.zeros(shape, dtype=dtype) for name in "qkv"}


OCA_GOOD = {**maps(1, 8, 8, 12), "bias": torch.zeros(81, 2), "window": 4, "overlap": 2, "heads": 2}
OCA_BAD = {
    "heads that do not divide": ({"heads": 5, "bias": torch.zeros(81, 5)}, "heads"),
    "no heads": ({"heads": 0}, "heads"),
    "odd overlap": ({"overlap": 3}, "overlap"),
    "negative overlap": ({"overlap": -2}, "overlap"),
    "overlap beyond the window": ({"overlap": 6}, "overlap"),
    "no window": ({"window": 1, "overlap": 0}, "window"),
    "table of another window": ({"bias": torch.zeros(121, 2)}, "bias"),
    "table of other heads": ({"bias": torch.zeros(81, 3)}, "bias"),
    "table without an axis": ({"bias": torch.zeros(81)}, "bias"),
    "other keys": ({"k": torch.zeros(1, 8, 8, 10)}, "k"),
    "other values": ({"v": torch.zeros(1, 8, 9, 12)}, "v"),
    "a map without a batch": ({"q": torch.zeros(8, 8, 12)}, "q"),
    "an empty map": (maps(1, 0, 8, 12), "q is empty"),
    "an empty batch": (maps(0, 8, 8, 12), "q is empty"),
    "integers": (maps(1, 8, 8, 12, dtype=torch.int32), "q"),
    "another type": ({"bias": torch.zeros(81, 2).half()}, "bias"),
}
ENLA_GOOD = {
    **{name: torch.zeros(1, 4, 6, 5) for name in "qk"},
    "v": torch.zeros(1, 3, 6, 5),
    "projection": torch.zeros(8, 4),
    "eps": 1e-4,
}
ENLA_BAD = {
    "projection of a wrong width": ({"projection": torch.zeros(8, 5)}, "projection"),
    "projection without features": ({"projection": torch.zeros(0, 4)}, "projection"),
    "projection of one axis": ({"projection": torch.zeros(8)}, "projection"),
    "other keys": ({"k": torch.zeros(1, 5, 6, 5)}, "k"),
    "values of another size": ({"v": torch.zeros(1, 3, 6, 6)}, "v"),
    "values of another batch": ({"v": torch.zeros(2, 3, 6, 5)}, "v"),
    "an empty map": ({"v": torch.zeros(1, 3, 0, 5)}, "v is empty"),
    "empty embeddings": ({"q": torch.zeros(1, 0, 6, 5)}, "q is empty"),
    "flat queries": ({"q": torch.zeros(1, 4, 30)}, "q"),
    "negative eps": ({"eps": -1e-4}, "eps"),
    "infinite eps": ({"eps": float("inf")}, "eps"),
    "integers": ({"q": torch.zeros(1, 4, 6, 5).int()}, "q"),
    "another type": ({"v": torch.zeros(1, 3, 6, 5).bfloat16()}, "v"),
}
BAD = [
    *(pytest.param(oca, OCA_GOOD, *bad, id=f"oca: {name}") for name, bad in OCA_BAD.items()),
    *(pytest.param(enla, ENLA_GOOD, *bad, id=f"enla: {name}") for name, bad in ENLA_BAD.items()),
]


@pytest.mark.parametrize(("op", "good", "changed", "named"), BAD)
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_bad_input_is_named(op, good, changed, named, device) -> None:
    """On real tensors and where only shapes flow, as in an export."""

    def there(arguments):
        return {n: a.to(device) if isinstance(a, torch.Tensor) else a for n, a in arguments.items()}

    assert op(**there(good)).shape == good["v"].shape
    with pytest.raises(PluginError, match=rf"^(oca|enla): {re.escape(named)}\b") as caught:
        op(**there(good | changed))
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, SrDeployError)


def test_tensors_must_be_together() -> None:
    with pytest.raises(PluginError, match=r"^oca: bias is on meta, q on cpu"):
        oca(**OCA_GOOD | {"bias": OCA_GOOD["bias"].to("meta")})


def test_the_ops_are_the_folders() -> None:
    assert op_names() == ("enla", "oca")
    for name in op_names():
        assert hasattr(torch.ops.srdeploy, name)


def test_sizes_of_an_attention() -> None:
    shape = check(dict.fromkeys("qkv", (2, 20, 33, 12)), (1521, 2), 16, 8, 2)
    assert (shape.windows_down, shape.windows_across, shape.key_window) == (2, 3, 24)
    assert shape.macs == 2 * (2 * 2 * 3) * 256 * 576 * 12
