from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from fcdcc.coding.combine import combine_runs


@given(
    outer=st.sampled_from([1, 3]),
    length=st.integers(0, 12),
    inner=st.sampled_from([1, 4, 200]),
    step=st.integers(1, 5),
    count=st.integers(1, 12),
    before=st.integers(0, 6),
    zeros=st.sets(st.integers(0, 3)),
)
def test_combinations_are_those_of_the_runs(
    outer: int, length: int, inner: int, step: int, count: int, before: int, zeros: set[int]
) -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn((outer, length, inner), generator=generator, dtype=torch.float64)
    matrix = np.random.default_rng(1).normal(size=(2, 4))
    matrix[:, list(zeros)] = 0.0
    behind = max(0, 3 * step + count - before - length)
    padded = torch.nn.functional.pad(x, (0, 0, before, behind))
    runs = torch.stack([padded[:, a * step : a * step + count] for a in range(4)])
    expected = torch.einsum("ia,aorw->oirw", torch.from_numpy(matrix), runs)
    given_ = torch.zeros_like(expected)
    seen: list[int] = []
    for run, values in combine_runs(x, matrix, step, count, before):
        given_[:, :, run] = values
        seen += range(count)[run]
    assert torch.allclose(given_, expected, rtol=0, atol=1e-12)
    assert len(seen) == len(set(seen))


def test_runs_that_no_combination_needs_are_not_read() -> None:
    x = torch.full((1, 8, 3), float("nan"))
    x[:, 2:6] = 1.0
    matrix = np.array([[0.0, 1.0, 2.0, 0.0]])
    [(run, values)] = combine_runs(x, matrix, step=2, count=2, before=0)
    assert run == slice(0, 2)
    assert (values == 3.0).all()
