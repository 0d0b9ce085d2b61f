"""Every kind of output in every stored form, against PyTorch: right, or refused in words.

The table in ``docs/predictions.md`` says which forms there are; its cells are looked up in
:data:`PYTORCH`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from fcdcc.pipeline.errors import OptionError
from fcdcc.pipeline.heads import HEAD_KINDS, Head, HeadKind, Values
from fcdcc.pipeline.stored_forms import StoredForm, StoredPrediction

PAGE = Path(__file__).parents[2] / "docs" / "predictions.md"
IMAGES, CLASSES, SPACE = 6, 5, (4, 7)
FORMS = ("logits", "probabilities", "classes", "top:2")

REFUSED = "refused"
Expected = dict[str, Tensor]


def _top(probabilities: Tensor) -> Expected:
    found = probabilities.topk(2, 1)
    return {"prediction": found.indices, "probability": found.values}


def _one(values: Tensor) -> Tensor:
    """Return values without an axis of one channel."""
    return values.squeeze(1) if values.ndim > 1 and values.shape[1] == 1 else values


PYTORCH: dict[str, Callable[[Tensor], Expected]] = {
    "as it is": lambda x: {"prediction": x},
    "its numbers": lambda x: {"prediction": _one(x)},
    "softmax": lambda x: {"prediction": x.softmax(1)},
    "sigmoid": lambda x: {"prediction": x.sigmoid()},
    "argmax": lambda x: {"prediction": x.argmax(1)},
    "sigmoid above the threshold": lambda x: {"prediction": _one(x.sigmoid() > 0.5)},
    "above the threshold": lambda x: {"prediction": _one(x > 0.5)},
    "the K largest of its softmax": lambda x: _top(x.softmax(1)),
    "the K largest of its sigmoid": lambda x: _top(x.sigmoid()),
    "the K largest": _top,
}
"""What a cell of the table means, computed by PyTorch for a threshold of 0.5 and K = 2."""


def table() -> dict[tuple[str, str], dict[str, str]]:
    """Return the cells of the table by kind and values of the output, and form."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    for line in PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) != 2 + len(FORMS) or not cells[0].startswith("`"):
            continue
        for kind in re.findall(r"`([a-z-]+)`", cells[0]):
            found[kind, cells[1]] = dict(zip(FORMS, cells[2:], strict=True))
    return found


TABLE = table()


def drawn(kind: HeadKind, values: Values, is_dense: bool, channels: int | None) -> Tensor:
    """Return the numbers of an output of a kind."""
    torch.manual_seed(3)
    shape = (IMAGES, *([] if channels is None else [channels]), *(SPACE if is_dense else ()))
    numbers = torch.randn(shape)
    if kind == "label-map":
        return torch.randint(0, CLASSES, shape)
    if values == "decided":
        return numbers > 0
    if values == "probabilities":
        return numbers.softmax(1) if kind == "probabilities" else numbers.sigmoid()
    return numbers


def outputs() -> Iterator[Any]:
    for (kind, values), cells in TABLE.items():
        for is_dense in (False, True):
            if (kind == "score" and is_dense) or (kind in ("mask", "dense") and not is_dense):
                continue
            several = kind in ("logits", "probabilities", "labels", "dense", "embedding")
            for channels in [CLASSES] if several else [None, 1]:
                if kind == "label-map" and channels == 1:
                    continue
                for form in FORMS:
                    yield pytest.param(
                        kind, values, is_dense, channels, form, cells[form],
                        id=f"{kind}-{values}-{'dense' if is_dense else 'flat'}-{channels}-{form}",
                    )  # fmt: skip


def head_of(kind: Any, values: Any, output: Tensor, is_dense: bool) -> Head:
    shape = tuple(output.shape[1:])
    dtype = str(output.dtype).removeprefix("torch.")
    return Head(kind, values, shape, dtype, 2 if is_dense else 0, "this test says so")


def test_the_table_has_every_kind() -> None:
    assert {kind for kind, _ in TABLE} == set(HEAD_KINDS)
    assert {values for _, values in TABLE} == set(get_args(Values))


@pytest.mark.parametrize(
    ("kind", "values", "is_dense", "channels", "form", "cell"), list(outputs())
)
def test_a_form_is_right_or_refused(
    kind: HeadKind, values: Values, is_dense: bool, channels: int | None, form: str, cell: str
) -> None:
    output = drawn(kind, values, is_dense, channels)
    head = head_of(kind, values, output, is_dense)
    if cell == REFUSED:
        with pytest.raises(OptionError, match=rf"--store {form} for .* use --store") as error:
            StoredForm.parse(form).of(head)
        assert "\n" not in str(error.value)
        return
    stored = StoredForm.parse(form).of(head)
    made = stored.apply(output.numpy())
    expected = PYTORCH[cell](output)
    assert made.keys() == expected.keys()
    for name, values_expected in expected.items():
        found, wanted = made[name], values_expected.numpy()
        assert found.shape == wanted.shape
        if wanted.dtype.kind == "f":
            np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-7)
        else:
            np.testing.assert_array_equal(found, wanted)
    check_arrays(stored, made)


def check_arrays(stored: StoredPrediction, made: dict[str, Any]) -> None:
    """Check that the arrays of the output are of the shapes and types that are written."""
    arrays = {array.name: array for array in stored.arrays(("y", "x"))}
    assert arrays.keys() == made.keys()
    for name, array in arrays.items():
        assert array.shape == made[name].shape[1:]
        assert array.dtype == made[name].dtype.name
        assert len(set(array.dims)) == len(array.shape)


def test_integers_and_truth_values_keep_what_they_are() -> None:
    numbers = torch.tensor([[2**40, -1], [0, 3]])
    stored = StoredForm("classes").of(head_of("label-map", "decided", numbers, False))
    assert stored.apply(numbers.numpy())["prediction"].tolist() == numbers.tolist()
    truth = torch.tensor([[True, False]])
    for form, dtype in (("logits", "uint8"), ("classes", "int8")):
        kept = StoredForm(form).of(head_of("labels", "decided", truth, False)).apply(truth.numpy())
        assert kept["prediction"].tolist() == [[1, 0]]
        assert kept["prediction"].dtype == dtype


def test_what_is_no_number_is_in_no_class() -> None:
    numbers = torch.tensor([0.2, torch.nan, -3.0])
    stored = StoredForm("classes").of(head_of("score", "logits", numbers, False))
    assert stored.apply(numbers.numpy())["prediction"].tolist() == [1, -1, 0]
    chances = StoredForm("probabilities").of(head_of("score", "logits", numbers, False))
    assert np.isnan(chances.apply(numbers.numpy())["prediction"]).tolist() == [False, True, False]


@pytest.mark.parametrize("threshold", [0.0, 0.1, 0.9, 1.0])
def test_another_threshold(threshold: float) -> None:
    torch.manual_seed(8)
    numbers = torch.randn(500, 1) * 10
    stored = StoredForm("classes").of(head_of("score", "logits", numbers, False), threshold)
    assert f"where its probability is above the threshold, {threshold:g}" in str(stored)
    expected = (numbers.squeeze(1).sigmoid() > threshold).int()
    assert stored.apply(numbers.numpy())["prediction"].tolist() == expected.tolist()


def test_a_threshold_that_decides_nothing_is_refused() -> None:
    for kind, values, form in [
        ("logits", "logits", "classes"), ("score", "logits", "logits"),
        ("label-map", "decided", "classes"),
    ]:  # fmt: skip
        head = head_of(kind, values, drawn("logits", "logits", False, 4), False)
        with pytest.raises(OptionError, match=r"--threshold 0.3 with --store .* leave it out"):
            StoredForm(form).of(head, 0.3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_probabilities_have_the_type_of_the_network(dtype: torch.dtype) -> None:
    numbers = torch.tensor([[-700.0, 0.0, 11.0]], dtype=dtype)
    wide = numbers.double()
    for kind, exact in (("logits", wide.softmax(1)), ("labels", wide.sigmoid())):
        head = head_of(kind, "logits", numbers, False)
        made = StoredForm("probabilities").of(head).apply(numbers.numpy())["prediction"]
        assert made.dtype == head.dtype
        tolerance = 2e-3 if dtype == torch.float16 else 1e-6
        np.testing.assert_allclose(made, exact, rtol=tolerance, atol=1e-7)


def test_outputs_that_older_versions_made_right_are_continued() -> None:
    """They applied softmax and argmax to everything, and stored the type of the computation."""
    logits = drawn("logits", "logits", False, CLASSES)
    for form in FORMS:
        stored = StoredForm.parse(form).of(head_of("logits", "logits", logits, False))
        assert stored.identity("float32") is None, form
    score = drawn("score", "logits", False, 1)
    for kind, values, output, form, is_same in [
        ("embedding", "unknown", logits, "logits", True),
        ("probabilities", "probabilities", logits, "classes", True),
        ("probabilities", "probabilities", logits, "probabilities", False),
        ("probabilities", "probabilities", logits, "top:2", False),
        ("labels", "logits", logits, "classes", False),
        ("score", "logits", score, "logits", True),
        ("score", "logits", score, "classes", False),
        ("label-map", "decided", logits.argmax(1), "logits", False),
        ("labels", "decided", logits > 0, "logits", False),
    ]:  # fmt: skip
        stored = StoredForm.parse(form).of(head_of(kind, values, output, False))
        assert (stored.identity("float32") is None) is is_same, (kind, form)


def test_another_threshold_is_another_job() -> None:
    head = head_of("score", "logits", drawn("score", "logits", False, 1), False)
    found = [StoredForm("classes").of(head, limit).identity("float32") for limit in (0.5, 0.6)]
    assert found[0] != found[1]
    assert StoredForm("classes").of(head).identity("float32") == found[0]
