"""The Triton kernels, interpreted on the CPU, against float64 and beside plain PyTorch.

The rule of the house: our error is at most twice that of plain PyTorch in the same type.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from srdeploy.bench.paper_ops import enla_written, oca_unfolded
from srdeploy.bench.plugin_cases import ENLA, OCA, EnlaCase, OcaCase, error, rounded
from srdeploy.errors import PluginError
from srdeploy.plugins.arguments import KERNEL_DTYPES
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
    arguments = rounded(case.arguments(), getattr(torch, dtype))
    exact = oca_unfolded(*rounded(arguments, torch.float64))
    got = attend(case, arguments)
    assert got.dtype == arguments[0].dtype
    assert torch.isfinite(got).all()
    assert error(got, exact) <= 2 * error(oca_unfolded(*arguments), exact)


@pytest.mark.parametrize("dtype", KERNEL_DTYPES)
@pytest.mark.parametrize("case", ENLA, ids=lambda c: c.name)
def test_enla_kernels(case: EnlaCase, dtype: str) -> None:
    check_enla(case, dtype)


def check_enla(case: EnlaCase, dtype: str) -> None:
    arguments = rounded(case.arguments(), getattr(torch, dtype))
    exact = enla_written(*rounded(arguments, torch.float64))
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
    arguments = rounded(ENLA[1].arguments(), torch.float16)
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
