from __future__ import annotations

import pickle

import pytest

import fcdcc.storage
from fcdcc.coding.errors import FcdccError
from fcdcc.storage import errors

TREE = {
    "DamageError": OSError,
    "InputError": ValueError,
    "LocationError": ValueError,
    "LockedError": OSError,
    "OutputError": OSError,
    "OutputGoneError": OSError,
    "OutputMismatchError": ValueError,
    "PreparationError": ValueError,
    "UnreachableError": ConnectionError,
}


def test_the_tree_is_complete() -> None:
    assert set(errors.__all__) == TREE.keys()
    assert all(hasattr(fcdcc.storage, name) for name in TREE)


@pytest.mark.parametrize("name", sorted(TREE))
def test_each_error_is_ours_and_the_builtin_it_resembles(name: str) -> None:
    error = getattr(errors, name)("what was given, what was expected, what to do")
    assert isinstance(error, FcdccError)
    assert isinstance(error, TREE[name])
    there = pickle.loads(pickle.dumps(error))
    assert type(there) is type(error)
    assert str(there) == str(error)


def test_an_output_of_another_job_is_an_output_that_cannot_be_written() -> None:
    for error in (errors.OutputMismatchError, errors.LockedError, errors.DamageError):
        assert issubclass(error, errors.OutputError)


@pytest.mark.parametrize("name", fcdcc.storage.__all__)
def test_every_public_name_is_documented(name: str) -> None:
    assert getattr(fcdcc.storage, name) is not None
