"""The contract of a code, as tests that pytest collects from a subclass.

    class TestMyCode(CodeContract):
        def make(self) -> Code:
            return my_code(n=6, k_a=4, k_b=2)

This module does not import pytest. The methods raise AssertionError with what was expected if
the code breaks the contract.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Iterator

import numpy as np
import torch
from torch.nn import functional

from ..code import Code
from ..conditioning import condition_of, guaranteed_tolerance
from ..convolution import coded_conv
from ..errors import NotDecodableError
from ..integrity import check_shares

__all__ = ["CodeContract"]


class CodeContract:
    """The contract of a code; a subclass defines :meth:`make`.

    Attributes
    ----------
    largest_condition
        Tests that compare numbers skip survivor sets with a larger condition number: a code
        may be ill-conditioned, and its decoding is then not accurate.
    sets
        Number of random survivor sets that each test tries.
    """

    largest_condition: float = 1e9
    sets: int = 6

    def make(self) -> Code:
        """Return the code under test, an equal one at each call."""
        raise NotImplementedError("give your subclass a method make() that returns the code")

    def survivor_sets(self, code: Code) -> Iterator[tuple[int, ...]]:
        """Yield sets of n − γ shares: the first, the last, and random ones."""
        size = code.n - guaranteed_tolerance(code)
        yield tuple(range(size))
        yield tuple(range(code.n - size, code.n))
        rng = np.random.default_rng(0)
        for _ in range(self.sets):
            yield tuple(sorted(int(s) for s in rng.choice(code.n, size, replace=False)))

    def test_matrices_are_finite_and_fit_together(self) -> None:
        """The matrices are (n, ell, k), finite, frozen, and no row of them is zero."""
        code = self.make()
        for matrix in (code.input_matrix, code.filter_matrix):
            _expect(matrix.shape[0] == code.n, f"{matrix.shape[0]} shares, not n = {code.n}")
            _expect(bool(np.isfinite(matrix).all()), "a coefficient is not finite")
            _expect(bool(matrix.any(axis=2).all()), "a coded part is a combination of nothing")
            _expect(not matrix.flags.writeable, "the matrices of a code can be changed")

    def test_is_a_value(self) -> None:
        """A code is equal to itself made again or pickled, and has the same hash."""
        code = self.make()
        again, copied = self.make(), pickle.loads(pickle.dumps(code))  # noqa: S301 - our own bytes
        _expect(code == again and hash(code) == hash(again), "made twice, it is not equal")
        _expect(code == copied and hash(code) == hash(copied), "pickling changes it")

    def test_threshold_is_not_below_what_counting_allows(self) -> None:
        """δ shares have at least as many results as there are products."""
        code = self.make()
        results = code.recovery_threshold * code.ell_a * code.ell_b
        _expect(
            results >= code.k_a * code.k_b,
            f"{code.recovery_threshold} shares give {results} results for {code.k_a * code.k_b} "
            "products",
        )

    def test_any_survivors_that_it_promises_decode(self) -> None:
        """Any n − γ shares decode, and their system is not singular in float64."""
        code = self.make()
        for survivors in self.survivor_sets(code):
            _expect(code.is_decodable(survivors), f"shares {survivors} do not decode")
            singular = condition_of(code, survivors) == math.inf
            _expect(not singular, f"shares {survivors} give a singular system")

    def test_fewer_than_the_threshold_do_not_decode(self) -> None:
        """One share less than δ is refused, with infinity and with an error."""
        code = self.make()
        few = range(code.recovery_threshold - 1)
        _expect(not code.is_decodable(few), f"{len(few)} shares decode")
        _expect(code.condition_number(few) == math.inf, "a condition number for too few shares")
        try:
            code.decoder(few)
        except NotDecodableError:
            return
        raise AssertionError("a decoder for too few shares")

    def test_condition_numbers_agree(self) -> None:
        """The fast condition number is the plain one, and at least 1."""
        code = self.make()
        for survivors in self.survivor_sets(code):
            plain, fast = code.condition_number(survivors), condition_of(code, survivors)
            if plain > self.largest_condition:
                continue
            _expect(plain >= 1.0 - 1e-9, f"condition number {plain}")
            _expect(
                math.isclose(plain, fast, rel_tol=1e-3), f"{survivors}: {fast}, expected {plain}"
            )

    def test_decoder_inverts(self) -> None:
        """The decoder returns the products that the results were made of."""
        code = self.make()
        rng = np.random.default_rng(1)
        products = rng.normal(size=(code.k_a * code.k_b, 5))
        for survivors in self.survivor_sets(code):
            more = tuple(sorted({*survivors, code.n - 1}))
            for chosen in (survivors, more):
                condition = condition_of(code, chosen)
                if condition > self.largest_condition:
                    continue
                system = np.concatenate(code.share_matrices[list(chosen)])
                decoded = code.decoder(chosen).apply(list(torch.from_numpy(system @ products)))
                error = np.abs(decoded.numpy() - products).max()
                _expect(error < 1e-12 * condition + 1e-12, f"shares {chosen}: error {error:.2g}")

    def test_convolution_is_that_of_torch(self) -> None:
        """A coded convolution equals the plain one, split by rows and by images."""
        code = self.make()
        generator = torch.Generator().manual_seed(2)
        x = torch.randn((2, 3, 11, 7), generator=generator, dtype=torch.float64)
        weight = torch.randn((5, 3, 3, 2), generator=generator, dtype=torch.float64)
        bias = torch.randn(5, generator=generator, dtype=torch.float64)
        expected = functional.conv2d(x, weight, bias, stride=(2, 1), padding=(1, 0))
        tried = 0
        for survivors in self.survivor_sets(code):
            condition = condition_of(code, survivors)
            if condition > self.largest_condition or tried == 3:
                continue
            tried += 1
            for split in ("rows", "images"):
                y = coded_conv(
                    x,
                    weight,
                    bias,
                    stride=(2, 1),
                    padding=(1, 0),
                    code=code,
                    survivors=survivors,
                    split=split,
                )
                error = float((y - expected).norm() / expected.norm())
                _expect(
                    y.shape == expected.shape and error < 1e-13 * condition + 1e-13,
                    f"shares {survivors} by {split}: relative error {error:.2g}",
                )

    def test_a_wrong_share_does_not_go_unnoticed(self) -> None:
        """With more shares than needed, right results agree; a wrong one is detected or located."""
        code = self.make()
        if guaranteed_tolerance(code) == 0:
            return
        rng = np.random.default_rng(3)
        products = torch.from_numpy(rng.normal(size=(code.k_a * code.k_b, 40)))
        matrices = torch.from_numpy(code.share_matrices.copy())
        results = {share: list(matrices[share] @ products) for share in range(code.n)}
        _expect(check_shares(code, results).consistent, "right shares are called inconsistent")
        wrong = code.n // 2
        results[wrong] = [row * 1.01 for row in results[wrong]]
        verdict = check_shares(code, results)
        _expect(not verdict.consistent, f"the wrong share {wrong} goes unnoticed")
        _expect(verdict.wrong in ((), (wrong,)), f"{verdict.wrong} accused instead of {wrong}")


def _expect(condition: bool, otherwise: str) -> None:
    if not condition:
        raise AssertionError(otherwise)
