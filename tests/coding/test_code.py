from __future__ import annotations

import os
import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from fcdcc.coding import Code, CodeError, NotDecodableError, make_code
from fcdcc.coding.crme import crme
from fcdcc.coding.registry import BUILDERS, code_names

CODE = crme(6, 4, 4)


def repetition(every_delta: bool = False) -> Code:
    """Two copies of two uncoded input parts: some pairs of shares decode, some do not."""
    inputs = np.array([[[1.0, 0.0]], [[0.0, 1.0]]] * 2)
    return Code("repetition", inputs, np.ones((4, 1, 1)), 2, every_delta)


def test_sizes() -> None:
    assert (CODE.n, CODE.k_a, CODE.k_b, CODE.ell_a, CODE.ell_b) == (6, 4, 4, 2, 2)
    assert (CODE.recovery_threshold, CODE.tolerance) == (4, 2)
    assert CODE.share_matrices.shape == (6, 4, 16)
    for share in range(6):
        expected = np.kron(CODE.input_matrix[share], CODE.filter_matrix[share])
        assert np.array_equal(CODE.share_matrices[share], expected)


def test_a_code_cannot_be_changed() -> None:
    for matrix in (CODE.input_matrix, CODE.filter_matrix, CODE.share_matrices):
        with pytest.raises(ValueError, match="read-only"):
            matrix[0, 0, 0] = 1.0


def test_what_is_decodable() -> None:
    assert CODE.is_decodable([0, 2, 3, 5])
    assert CODE.is_decodable(range(6))
    assert not CODE.is_decodable([0, 2, 3])
    assert not CODE.is_decodable([0, 2, 3, 3])
    assert not CODE.is_decodable([])
    assert CODE.condition_number([0, 2, 3]) == float("inf")


def test_where_it_matters_which_shares_are_there() -> None:
    code = repetition()
    assert code.is_decodable([0, 3])
    assert not code.is_decodable([0, 2])
    assert code.is_decodable([0, 2, 1])
    assert code.condition_number([0, 2]) == float("inf")
    with pytest.raises(NotDecodableError, match=r"shares \[0, 2\].*wait for further"):
        code.decoder([0, 2])


def test_parts_needed() -> None:
    assert CODE.parts_needed(3) == (0, 1, 2, 3)
    assert repetition().parts_needed(3) == (1,)


def test_shares_that_do_not_exist() -> None:
    for call in (CODE.is_decodable, CODE.condition_number, CODE.decoder):
        with pytest.raises(CodeError, match="shares 0 to 5"):
            call([0, 1, 2, 6])


def test_decoders_are_made_once() -> None:
    assert CODE.decoder([5, 0, 2, 3]) is crme(6, 4, 4).decoder([0, 2, 3, 5])


def test_wrong_matrices_are_refused_in_words() -> None:
    ones = np.ones((3, 1, 1))
    with pytest.raises(CodeError, match="three axes"):
        Code("x", ones[0], ones, 1)
    with pytest.raises(CodeError, match="for 2 shares and filter_matrix for 3"):
        Code("x", ones[:2], ones, 1)
    with pytest.raises(CodeError, match="threshold 4 with n = 3"):
        Code("x", ones, ones, 4)


def test_equality_and_hash() -> None:
    assert crme(6, 4, 4) == CODE
    assert hash(crme(6, 4, 4)) == hash(CODE)
    assert crme(6, 4, 4, q=7) != CODE
    assert CODE != "crme"


def test_pickling_within_a_process() -> None:
    CODE.decoder(range(4))
    copy = pickle.loads(pickle.dumps(CODE))
    assert copy == CODE
    assert {CODE: 1}[copy] == 1
    assert not copy.input_matrix.flags.writeable


def test_a_code_hashes_alike_wherever_it_was_made() -> None:
    # Each process hashes strings with a seed of its own.
    program = (
        "import pickle, sys; from fcdcc.coding.crme import crme; "
        "code = crme(6, 4, 4); hash(code); sys.stdout.buffer.write(pickle.dumps(code))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    made = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, check=True
    )
    assert {CODE: "found"}[pickle.loads(made.stdout)] == "found"


def test_make_code_gives_what_the_builder_gives() -> None:
    code = make_code("crme", n=20, k_a=8, k_b=8, q=21)
    assert code == crme(20, 8, 8, q=21)
    assert code is make_code("crme", n=20, k_a=8, k_b=8, q=21)


def test_make_code_refuses_in_words() -> None:
    with pytest.raises(CodeError, match=r"'crm'.*crme"):
        make_code("crm", n=6, k_a=4, k_b=4)
    with pytest.raises(CodeError, match=r"options \['p'\].*it has q"):
        make_code("crme", n=6, k_a=4, k_b=4, p=3)


@pytest.mark.parametrize("wrong", [0, -4, 4.0, "4"])
def test_make_code_takes_positive_integers(wrong: Any) -> None:
    for name in ("n", "k_a", "k_b"):
        with pytest.raises(CodeError, match=f"{name} = {wrong!r}; expected a positive integer"):
            make_code("crme", **({"n": 6, "k_a": 4, "k_b": 4} | {name: wrong}))


def test_every_listed_name_works() -> None:
    assert code_names() == tuple(sorted(BUILDERS))
    assert "crme" in code_names()
