"""Sketches of shares find what is wrong in any entry, and call nothing wrong that is rounding."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fcdcc.coding import Code, CodedConv, ConvGeometry, make_code
from fcdcc.coding.integrity import Verdict
from fcdcc.coding.sketches import SUMS, check_sketches, convolution_scale, sketch, summed

CODES = {
    "images": (make_code("systematic", n=6, k_a=16, k_b=1), "images"),
    "strips": (make_code("systematic", n=6, k_a=4, k_b=1, parity="real"), "rows"),
    "crme": (make_code("crme", n=6, k_a=4, k_b=4), "rows"),
}
GEOMETRY = ConvGeometry.of((1, 16, 12, 12), (24, 16, 3, 3), padding=1)
REDUCTION = 16 * 9


class Group:
    """The shares of a layer, and what is needed to check them."""

    def __init__(self, form: str, dtype: torch.dtype, x: torch.Tensor, weight: torch.Tensor):
        code, split = CODES[form]
        self.code: Code = code
        self.layer = CodedConv(GEOMETRY, code, split)  # type: ignore[arg-type]  # a literal
        self.images = len(x)
        self.shares: dict[int, torch.Tensor] = {}
        self.scale = 0.0
        for share in range(code.n):
            entering = self.layer.encode_input(x.to(dtype), share)
            filters = self.layer.encode_filters(weight.to(dtype), share)
            self.shares[share] = self.layer.convolve(entering, filters, share)
            size = float(torch.linalg.vector_norm(filters)) / math.sqrt(filters.numel())
            self.scale = max(self.scale, convolution_scale(entering, size, REDUCTION))

    def verdict(self, *shares: int) -> Verdict:
        chosen = shares or tuple(self.shares)
        outputs = {s: self.layer.outputs(self.shares[s], s, self.images) for s in chosen}
        sketches = {share: sketch(rows) for share, rows in outputs.items()}
        entries = outputs[chosen[0]][0].numel()
        return check_sketches(self.code, sketches, self.scale, REDUCTION, entries)


def group(form: str, dtype: torch.dtype, seed: int, kind: str = "normal") -> Group:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn((16, 16, 12, 12), generator=generator, dtype=torch.float64)
    weight = torch.randn((24, 16, 3, 3), generator=generator, dtype=torch.float64) / 12
    if kind == "cancelling":
        x, weight = x * 1e-3 + 1, weight - weight.mean(dim=(1, 2, 3), keepdim=True)
    elif kind == "one image":
        x[1:] = 0
    elif kind == "one pixel":
        x = torch.zeros_like(x)
        x[0, 0, 5, 5] = 1
    elif kind == "uneven":
        x *= 10 ** torch.linspace(-6, 6, 16).reshape(-1, 1, 1, 1)
    elif kind == "nothing":
        x = torch.zeros_like(x)
    return Group(form, dtype, x, weight)


DTYPES = [torch.float32, torch.float64]
KINDS = ["normal", "cancelling", "one image", "one pixel", "uneven", "nothing"]


@pytest.mark.parametrize("form", CODES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_rounding_is_not_called_wrong(form: str, dtype: torch.dtype, kind: str) -> None:
    made = group(form, dtype, 1, kind)
    for shares in ((), (0, 1, 2, 3, 4), (1, 2, 3, 4, 5)):
        assert made.verdict(*shares).consistent


@pytest.mark.parametrize("form", CODES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@given(data=st.data())
def test_one_wrong_entry_is_found_and_located(
    form: str, dtype: torch.dtype, data: st.DataObject
) -> None:
    made = group(form, dtype, data.draw(st.integers(0, 3)))
    share = data.draw(st.integers(0, 5))
    values = made.shares[share] = made.shares[share].clone()
    where = data.draw(st.integers(0, values.numel() - 1))
    by = data.draw(st.sampled_from([0.05, -0.3, 4.0, 1e6]))
    values.view(-1)[where] += by * values.std()
    verdict = made.verdict()
    assert not verdict.consistent
    assert verdict.wrong == (share,)


@pytest.mark.parametrize("form", CODES)
@pytest.mark.parametrize("odd", [float("nan"), float("inf")])
def test_what_is_no_number_is_found_and_located(form: str, odd: float) -> None:
    made = group(form, torch.float32, 0)
    made.shares[4] = made.shares[4].clone()
    made.shares[4].view(-1)[77] = odd
    assert made.verdict().wrong == (4,)


def test_a_huge_share_does_not_hide_itself() -> None:
    made = group("images", torch.float32, 0)
    made.shares[2] = made.shares[2] * 1e12
    assert made.verdict().wrong == (2,)


@given(st.integers(1, 4 * SUMS))
def test_every_entry_is_in_one_sum(entries: int) -> None:
    assert summed(entries) == max(1, math.ceil(entries / SUMS))
    one = torch.zeros(entries)
    one[entries // 2] = 3.0
    sums = sketch([one])
    assert sums.shape == (1, min(entries, SUMS))
    assert float(sums.abs().sum()) == 3.0
