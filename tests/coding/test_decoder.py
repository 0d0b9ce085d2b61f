from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fcdcc.coding import NotDecodableError
from fcdcc.coding.crme import crme
from fcdcc.coding.decoder import make_decoder

RNG = np.random.default_rng(3)


def systematic(products: int, parity: int) -> np.ndarray:
    """Stacks for one result a share: uncoded products, then random combinations of them."""
    return np.concatenate([np.eye(products), RNG.normal(size=(parity, products))])[:, None]


def results_of(stacks: np.ndarray, shares: list[int], products: torch.Tensor) -> torch.Tensor:
    system = torch.from_numpy(np.concatenate(stacks[shares]))
    return (system @ products.double()).to(products.dtype)


def test_a_code_without_uncoded_rows_is_inverted() -> None:
    code = crme(6, 4, 4)
    decoder = code.decoder([0, 1, 4, 5])
    assert decoder.copied == ()
    assert len(decoder.solved) == 16
    system = np.concatenate(code.share_matrices[[0, 1, 4, 5]])
    assert np.allclose(decoder.matrix @ system, np.eye(16), atol=1e-13)


def test_uncoded_products_are_copied_bit_for_bit() -> None:
    stacks = systematic(5, 3)
    products = torch.randn(5, 4, 3)
    decoder = make_decoder(stacks, [0, 1, 2, 3, 4])
    assert decoder.solved == ()
    assert torch.equal(decoder.apply(products), products)


@pytest.mark.parametrize("shares", [[0, 1, 3, 4, 6], [0, 1, 3, 5, 7], [0, 3, 5, 6, 7]])
def test_only_the_missing_products_are_solved_for(shares: list[int]) -> None:
    stacks = systematic(5, 3)
    products = torch.randn(5, 4, 3, dtype=torch.float64)
    decoder = make_decoder(stacks, shares)
    missing = sorted(set(range(5)) - set(shares))
    assert list(decoder.solved) == missing
    assert decoder.matrix.shape == (len(missing), len(shares))
    results = results_of(stacks, shares, products.flatten(1)).unflatten(1, (4, 3))
    decoded = decoder.apply(results)
    assert torch.allclose(decoded, products, rtol=0, atol=1e-12)
    for product, row in decoder.copied:
        assert torch.equal(decoded[product], results[row])


def test_rows_that_say_nothing_about_the_missing_are_not_read() -> None:
    stacks = np.concatenate([np.eye(4), [[1.0, 1.0, 0.0, 0.0]]])[:, None]
    decoder = make_decoder(stacks, [1, 2, 3, 4])
    assert decoder.rows == (0, 3)
    assert decoder.matrix.tolist() == [[-1.0, 1.0]]


def test_the_first_of_several_copies_is_taken() -> None:
    stacks = np.tile(np.eye(3), (3, 1))[:, None]
    decoder = make_decoder(stacks, [0, 2, 3, 4, 8])
    assert decoder.solved == ()
    assert decoder.copied == ((0, 0), (1, 3), (2, 1))


def test_more_results_than_needed_are_least_squares() -> None:
    code = crme(20, 8, 8)
    shares = list(range(17))
    products = torch.randn(64, 50, dtype=torch.float64)
    noise = 1e-6 * torch.randn(17 * 4, 50, dtype=torch.float64)
    results = results_of(code.share_matrices, shares, products) + noise
    with_all = code.decoder(shares).apply(results) - products
    with_fewest = code.decoder(shares[:16]).apply(results[:64]) - products
    assert with_all.norm() < 0.5 * with_fewest.norm()
    system = np.concatenate(code.share_matrices[shares])
    assert np.allclose(code.decoder(shares).matrix, np.linalg.pinv(system), atol=1e-10)


def test_some_of_the_products_alone() -> None:
    code = crme(6, 4, 4)
    results = torch.randn(16, 5, dtype=torch.float64)
    decoder = code.decoder([1, 2, 3, 5])
    everything = decoder.solve(results)
    assert torch.allclose(decoder.solve(results, [2, 9]), everything[[2, 9]], atol=1e-13)


def test_the_matrix_is_cast_once_per_dtype() -> None:
    decoder = crme(6, 4, 4).decoder([1, 2, 3, 5])
    single, double = torch.zeros(1), torch.zeros(1, dtype=torch.float64)
    with torch.inference_mode():
        first = decoder.matrix_as(single)
    assert first is decoder.matrix_as(single)
    assert not first.is_inference()
    assert decoder.matrix_as(double).dtype == torch.float64


def test_results_are_not_changed() -> None:
    decoder = crme(6, 4, 4).decoder([1, 2, 3, 5])
    results = torch.randn(16, 5)
    before = results.clone()
    decoder.apply(results)
    assert torch.equal(results, before)


def test_results_that_do_not_suffice_are_named() -> None:
    with pytest.raises(NotDecodableError, match=r"shares \[0, 1\] leave 3 products"):
        make_decoder(systematic(5, 3), [0, 1])
    stacks = np.concatenate([np.eye(2), [[0.0, 2.0]]])[:, None]
    with pytest.raises(NotDecodableError, match="full rank"):
        make_decoder(stacks, [1, 2])


def test_pickling() -> None:
    decoder = crme(6, 4, 4).decoder([1, 2, 3, 5])
    decoder.matrix_as(torch.zeros(1))
    copy = pickle.loads(pickle.dumps(decoder))
    assert copy.survivors == decoder.survivors
    assert np.array_equal(copy.matrix, decoder.matrix)


@given(st.integers(1, 6), st.integers(0, 4), st.data())
def test_any_sufficient_set_of_a_systematic_code(
    count: int, parity: int, data: st.DataObject
) -> None:
    stacks = systematic(count, parity)
    order = data.draw(st.permutations(range(count + parity)))
    shares = sorted(order[: data.draw(st.integers(count, count + parity))])
    products = torch.randn(count, 3, dtype=torch.float64)
    decoder = make_decoder(stacks, shares)
    decoded = decoder.apply(results_of(stacks, shares, products))
    condition = np.linalg.cond(np.concatenate(stacks[shares]))
    assert (decoded - products).norm() <= 1e-14 * condition * 100
    assert len(decoder.solved) == count - sum(share < count for share in shares)
