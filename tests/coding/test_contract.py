from __future__ import annotations

import numpy as np
import pytest

from fcdcc.coding import Code, make_code
from fcdcc.coding.comparators import chebyshev, khatri_rao, polynomial, replication, uncoded
from fcdcc.coding.crme import crme
from fcdcc.coding.systematic import systematic
from fcdcc.coding.testing import CodeContract


class TestCrme(CodeContract):
    def make(self) -> Code:
        return crme(6, 4, 4)


class TestCrmeOneSide(CodeContract):
    def make(self) -> Code:
        return crme(5, 1, 8, q=7)


class TestSystematicByInput(CodeContract):
    def make(self) -> Code:
        return systematic(6, 16, 1)


class TestSystematicByFilters(CodeContract):
    def make(self) -> Code:
        return systematic(5, 1, 12)


class TestSystematicBothSides(CodeContract):
    def make(self) -> Code:
        return systematic(8, 8, 3)


class TestSystematicBothSidesFilters(CodeContract):
    def make(self) -> Code:
        return systematic(6, 2, 8)


class TestSystematicComplex(CodeContract):
    def make(self) -> Code:
        return systematic(7, 4, 4, parity="complex")


class TestSystematicComplexUneven(CodeContract):
    def make(self) -> Code:
        return systematic(5, 2, 6, parity="complex")


class TestSystematicSeeded(CodeContract):
    def make(self) -> Code:
        return systematic(7, 20, 1, seed=5)


class TestSystematicRotation(CodeContract):
    def make(self) -> Code:
        return systematic(7, 4, 4, parity="rotation")


class TestSystematicRotationOneSide(CodeContract):
    def make(self) -> Code:
        return systematic(6, 1, 8, parity="rotation")


class TestPolynomial(CodeContract):
    def make(self) -> Code:
        return polynomial(7, 2, 3)


class TestPolynomialEquispaced(CodeContract):
    def make(self) -> Code:
        return polynomial(7, 3, 2, points="equispaced")


class TestChebyshev(CodeContract):
    def make(self) -> Code:
        return chebyshev(7, 2, 3)


class TestKhatriRao(CodeContract):
    def make(self) -> Code:
        return khatri_rao(7, 3, 2)


class TestReplication(CodeContract):
    def make(self) -> Code:
        return replication(6, 2, 1)


class TestUncoded(CodeContract):
    def make(self) -> Code:
        return uncoded(6, 2, 3)


def two_equal_shares() -> Code:
    good = crme(6, 4, 4)
    inputs, filters = good.input_matrix.copy(), good.filter_matrix.copy()
    inputs[5], filters[5] = inputs[4], filters[4]
    return Code("broken", inputs, filters, good.recovery_threshold)


class Broken(CodeContract):
    def make(self) -> Code:
        return two_equal_shares()


def test_the_suite_fails_a_code_that_does_not_keep_its_promise() -> None:
    with pytest.raises(AssertionError, match="singular"):
        Broken().test_any_survivors_that_it_promises_decode()


def test_the_suite_asks_for_a_code() -> None:
    with pytest.raises(NotImplementedError, match="make"):
        CodeContract().test_is_a_value()


@pytest.mark.parametrize("name", ["systematic", "crme", "polynomial", "chebyshev", "khatri-rao"])
def test_codes_are_made_by_name(name: str) -> None:
    code = make_code(name, n=6, k_a=4, k_b=1 if name != "crme" else 4)
    assert code.name == name
    assert np.isfinite(code.condition_number(range(code.recovery_threshold)))
