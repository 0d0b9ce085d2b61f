from __future__ import annotations

import inspect
import pickle

import pytest

from fcdcc.coding import errors
from fcdcc.coding.errors import FcdccError

PARENTS = {
    "Abandoned": (FcdccError, RuntimeError),
    "CodeError": (FcdccError, ValueError),
    "GeometryError": (FcdccError, ValueError),
    "IllConditionedError": (errors.CodeError,),
    "NotDecodableError": (FcdccError, ValueError),
    "TensorError": (FcdccError, TypeError),
}


def test_the_tree() -> None:
    defined = {name for name, kind in vars(errors).items() if inspect.isclass(kind)}
    assert defined == {*PARENTS, "FcdccError"} == set(errors.__all__)
    for name, parents in PARENTS.items():
        assert getattr(errors, name).__bases__ == parents


@pytest.mark.parametrize("name", sorted(PARENTS))
def test_errors_travel(name: str) -> None:
    error = getattr(errors, name)("what was given, what was expected")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == "what was given, what was expected"
