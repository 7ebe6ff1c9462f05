"""The Triton kernels, interpreted on the CPU, against float64 and beside plain PyTorch.

The rule of the house: our error is at most twice that of plain PyTorch in the same type.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from srdeploy.bench.paper_ops import enla_written, oca_unfolded
from srdeploy.bench.plugin_cases import ENLA, OCA, EnlaCase, OcaCase, error, exactly
from srdeploy.errors import PluginError
from srdeploy.plugins.arguments import KERNEL_DTYPES
from srdeploy.plugins.arithmetic import to_tf32
from srdeploy.plugins.enla import contract as enla_contract
from srdeploy.plugins.enla import launch as enla_launch
from srdeploy.plugins.oca import contract as oca_contract
from srdeploy.plugins.oca import launch as oca_launch


def attend(case: OcaCase, arguments) -> torch.Tensor:
    q, k, v, bias, window, overlap, heads = arguments
    shapes = {"q": q.shape, "k": k.shape, "v": v.shape}
    shape = oca_contract.check(shapes, bias.shape, window, overlap, heads)
    return oca_launch.launch(q, k, v, bias, shape)


def attend_linearly(arguments) -> torch.Tensor:
    q, k, v, projection, eps = arguments
    shape = enla_contract.check(q.shape, k.shape, v.shape, projection.shape, eps)
    return enla_launch.launch(q, k, v, projection, eps, shape)


@pytest.mark.parametrize("dtype", KERNEL_DTYPES)
@pytest.mark.parametrize("case", OCA, ids=lambda c: c.name)
def test_oca_kernel(case: OcaCase, dtype: str) -> None:
    arguments = case.arguments(getattr(torch, dtype))
    assert not arguments[1].is_contiguous()  # thirds of one map, as HAT has them
    exact = oca_unfolded(*exactly(arguments))
    got = attend(case, arguments)
    assert got.dtype == arguments[0].dtype
    assert torch.isfinite(got).all()
    assert error(got, exact) <= 2 * error(oca_unfolded(*arguments), exact)


@pytest.mark.parametrize("dtype", KERNEL_DTYPES)
@pytest.mark.parametrize("case", ENLA, ids=lambda c: c.name)
def test_enla_kernels(case: EnlaCase, dtype: str) -> None:
    check_enla(case, dtype)


def check_enla(case: EnlaCase, dtype: str) -> None:
    arguments = case.arguments(getattr(torch, dtype))
    exact = enla_written(*exactly(arguments))
    got = attend_linearly(arguments)
    assert got.dtype == arguments[2].dtype
    assert torch.isfinite(got).all()
    plain = enla_written(*arguments)
    assert error(got, exact) <= 2 * error(plain, exact)
    if "fp16" in case.name and dtype == "float16":
        assert not torch.isfinite(plain).all()


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_enla_sums_over_a_million_pixels(dtype: str) -> None:
    check_enla(EnlaCase("a million pixels, fp16 overflows", 1, (1000, 1000), 4, 4, 16), dtype)


def test_enla_is_the_same_in_every_run() -> None:
    arguments = ENLA[1].arguments(torch.float16)
    assert torch.equal(attend_linearly(arguments), attend_linearly(arguments))


def test_maps_are_read_as_they_lie() -> None:
    """Thirds of one map, a transposed map, and dense ones give the same."""
    case = OCA[2]
    q, k, v, *rest = case.arguments()
    assert not q.is_contiguous()
    dense = attend(case, (q.contiguous(), k.contiguous(), v.contiguous(), *rest))
    whole = torch.cat((q, k, v), -1)
    thirds = whole.split(q.shape[-1], -1)
    turned = [t.transpose(1, 2).contiguous().transpose(1, 2) for t in (q, k, v)]
    assert torch.equal(attend(case, (*thirds, *rest)), dense)
    assert torch.equal(attend(case, (*turned, *rest)), dense)


def test_zeros_beyond_the_map_are_keys() -> None:
    """One pixel among 35 zero keys has a thirty-sixth of the weight, not all of it."""
    shape = oca_contract.check(dict.fromkeys("qkv", (1, 1, 1, 16)), (81, 1), 4, 2, 1)
    q, v = torch.zeros(1, 1, 1, 16), torch.ones(1, 1, 1, 16)
    got = oca_launch.launch(q, q, v, torch.zeros(81, 1), shape)
    assert np.allclose(got, 1 / 36)


def test_what_is_no_number_stays_so() -> None:
    """Also with the bits that GPUs give it, which rounding to TF32 would turn into a zero."""
    q, k, v, projection, eps = ENLA[1].arguments(torch.float16)
    poisoned = k.clone()
    poisoned[0, 0, 0, 0] = torch.nan
    got = attend_linearly((q, poisoned, v, projection, eps))
    assert torch.isnan(got[0]).all()
    assert torch.isfinite(got[1:]).all()


def test_rounding_to_tf32() -> None:
    values = torch.tensor([1.0, 1 + 2**-10, 1 + 2**-11, -1 - 2**-12, 3e38, 0.0, float("inf")])
    bits = torch.tensor([0x7FFFFFFF, 0x7FC00000], dtype=torch.int32).view(torch.float32)
    out = torch.empty(9)
    round_all[(1,)](torch.cat((values, bits)), out, COUNT=9, BLOCK=16)
    expected = torch.tensor([1.0, 1 + 2**-10, 1 + 2**-10, -1.0, 3e38, 0.0, float("inf")])
    assert torch.allclose(out[:7], expected, rtol=2**-12)
    assert torch.isnan(out[7:]).all()


@triton.jit
def round_all(x, y, COUNT: tl.constexpr, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    tl.store(y + i, to_tf32(tl.load(x + i, mask=i < COUNT, other=0.0)), mask=i < COUNT)


def test_what_the_kernels_cannot_hold_is_refused() -> None:
    wide = oca_contract.check(dict.fromkeys("qkv", (1, 4, 4, 256)), (49, 1), 4, 0, 1)
    with pytest.raises(PluginError, match="heads of 256 channels"):
        oca_launch.launch(*(torch.zeros(1, 4, 4, 256) for _ in range(3)), torch.zeros(49, 1), wide)
    one = torch.zeros(1, 300, 2, 2)
    with pytest.raises(PluginError, match="q has 300 channels"):
        attend_linearly((one, one, one, torch.zeros(8, 300), 1e-4))
    small = torch.zeros(1, 4, 2, 2)
    with pytest.raises(PluginError, match="projection has 300 features"):
        attend_linearly((small, small, small, torch.zeros(300, 4), 1e-4))
