"""Shares of another shape or type, without numbers, or with errors: never a wrong prediction."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import zarr
from dask.context import thread_state
from numpy.typing import NDArray

from fcdcc.pipeline import infer, open_model
from fcdcc.pipeline.anyk.keys import parse_key
from fcdcc.pipeline.anyk.worker import worker_address
from fcdcc.pipeline.errors import WrongSharesError
from fcdcc.pipeline.graph import ATTEMPT_STRIDE
from fcdcc.pipeline.worker import share_checks
from fcdcc.pipeline.worker.kernels import gathered_kernels, image_kernels, row_kernels
from fcdcc.storage import verify
from support.jobs import fcdcc, predictions
from support.one_worker import FirstWorker
from support.planned import usual_plans
from support.small import Files

pytestmark = pytest.mark.cluster

Array = NDArray[Any]

FORMS = {
    "images": ["--split", "images"],
    "strips": ["--split", "rows"],
    "gathered": ["--code", "crme"],
}


def one_image_more(values: Array) -> Array:
    return np.concatenate([values[:1], values])


def one_image_less(values: Array) -> Array:
    return values[1:].copy()


def one_row_more(values: Array) -> Array:
    return np.concatenate([values[:, :, :1], values], axis=2)


def one_channel_less(values: Array) -> Array:
    return values[:, 1:].copy()


def flat(values: Array) -> Array:
    return values.reshape(-1)


def as_double(values: Array) -> Array:
    return values.astype(np.float64)


def as_text(values: Array) -> Array:
    return values.astype("U8")


def as_objects(values: Array) -> Array:
    return np.full(values.shape, "share", dtype=object)


def no_array(values: Array) -> Any:
    return "a share"


def fail(values: Array) -> NoReturn:
    raise RuntimeError("this worker is not well")


SHAPES = [one_image_more, one_image_less, one_row_more, one_channel_less, flat]
TYPES = [as_double, as_text, as_objects, no_array]


@pytest.fixture(autouse=True)
def every_layer_is_coded(monkeypatch: pytest.MonkeyPatch) -> None:
    usual_plans(monkeypatch)


def tamper(
    patch: pytest.MonkeyPatch,
    when: Callable[[int, int, str], bool],
    how: Callable[[Array], Any],
    *,
    in_retries: bool = False,
) -> list[int]:
    """Have shares replaced as they leave their worker, whatever was noted about them.

    Parameters
    ----------
    patch
        Undoes it.
    when
        Given the block, the position of the share and the worker: whether this one is replaced.
    how
        Returns what is sent in place of a share's values.
    in_retries
        Whether shares of blocks that are computed again are replaced, too.

    Returns
    -------
    The blocks that were hit, in order.
    """
    hit: list[int] = []
    original = share_checks.as_message

    def as_message(held: Any, layer: int, position: int, values: Array, entering: Any) -> Any:
        message = original(held, layer, position, values, entering)
        key = parse_key(getattr(thread_state, "key", None))
        if key is None or (key.position >= ATTEMPT_STRIDE and not in_retries):
            return message
        if not when(key.block, position, worker_address()):
            return message
        hit.append(key.block)
        if isinstance(message, share_checks.CheckedShare):
            return message._replace(values=how(message.values))
        return how(message)

    for module in (gathered_kernels, image_kernels, row_kernels):
        patch.setattr(module, "as_message", as_message)
    return hit


def each_in_one_form(ways: Sequence[Callable[[Array], Any]]) -> list[Any]:
    """Return every form with every way; of each way one form is in the short run."""
    return [
        pytest.param(
            form,
            how,
            id=f"{form}-{how.__name__}",
            marks=() if place == number % len(FORMS) else pytest.mark.long,
        )
        for number, how in enumerate(ways)
        for place, form in enumerate(FORMS)
    ]


def run(files: Files, output: Path, scheduler: str, *options: object) -> dict[str, Any]:
    result = fcdcc(
        "run", files.model, files.images, output, "--scheduler", scheduler, "--batch", 16,
        "--json", "-", *options,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "Traceback" not in result.stderr
    np.testing.assert_allclose(predictions(output), files.expected, atol=1e-5)
    assert verify(output) == []
    summary: dict[str, Any] = json.loads(result.stdout)
    return summary


@pytest.mark.parametrize(("form", "how"), each_in_one_form([*SHAPES, *TYPES]))
def test_malformed_shares_are_never_used(
    files: Files,
    scheduler: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    form: str,
    how: Callable[[Array], Any],
) -> None:
    # Of several blocks: the worker of one share may be late, and that share given up.
    hit = tamper(monkeypatch, lambda block, position, _: block > 0 and position == 1, how)
    summary = run(files, tmp_path / "out.zarr", scheduler, *FORMS[form])
    assert hit
    assert summary["status"] == "complete"


@pytest.mark.parametrize(("form", "how"), each_in_one_form([one_image_more, as_double, no_array]))
def test_a_worker_that_makes_malformed_shares_is_named_when_shares_are_verified(
    files: Files,
    scheduler: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    form: str,
    how: Callable[[Array], Any],
) -> None:
    bad = FirstWorker()
    monkeypatch.setattr("fcdcc.pipeline.anyk.state_machine.distrust.MAX_WRONG_BLOCKS", 100)
    hit = tamper(monkeypatch, lambda *where: bad.is_it(where[-1]), how, in_retries=True)
    summary = run(files, tmp_path / "out.zarr", scheduler, "--verify", "all", *FORMS[form])
    assert hit
    assert {found["worker"] for found in summary["corrupt_shares"]} <= {bad.address}


@pytest.mark.parametrize("verify", ["off", pytest.param("all", marks=pytest.mark.long)])
@pytest.mark.parametrize("form", FORMS)
def test_a_worker_with_errors_now_and_then_fails_blocks_in_words_until_they_are_done(
    files: Files,
    scheduler: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    form: str,
    verify: str,
) -> None:
    bad = FirstWorker()
    draw = random.Random(3)
    tamper(monkeypatch, lambda block, _, worker: bad.is_it(worker) and draw.random() < 0.3, fail)
    output = tmp_path / "out.zarr"
    command = ["run", files.model, files.images, output, "--scheduler", scheduler, "--batch", 8]
    for _ in range(50):
        result = fcdcc(*command, "--verify", verify, *FORMS[form], "--json", "-")
        if result.exit_code == 0:
            break
        assert result.exit_code == 4
        assert "failed: RuntimeError: this worker is not well" in result.stderr
        assert "Traceback" not in result.stderr
    assert result.exit_code == 0
    np.testing.assert_allclose(predictions(output), files.expected, atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_a_worker_that_makes_no_numbers_spoils_no_prediction(
    files: Files, scheduler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    bad = FirstWorker()

    def without_numbers(values: Array) -> Array:
        return np.full_like(values, np.nan)

    monkeypatch.setattr("fcdcc.pipeline.anyk.state_machine.distrust.MAX_WRONG_BLOCKS", 100)
    hit = tamper(monkeypatch, lambda *where: bad.is_it(where[-1]), without_numbers, in_retries=True)
    run(files, tmp_path / "out.zarr", scheduler, "--verify", "all", *FORMS[form])
    assert hit


def test_shares_that_are_wrong_every_time_fail_their_block_in_words(
    files: Files, scheduler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tamper(monkeypatch, lambda block, position, worker: block == 1, fail)
    output = tmp_path / "out.zarr"
    command = ["run", files.model, files.images, output, "--scheduler", scheduler, "--batch", 16]
    result = fcdcc(*command, "--split", "images", "--json", "-")
    assert result.exit_code == 4, result.output
    assert (
        "block 1 (images 16 to 31) failed: RuntimeError: this worker is not well" in result.stderr
    )
    assert "Traceback" not in result.stderr
    monkeypatch.undo()
    usual_plans(monkeypatch)
    assert fcdcc(*command).exit_code == 0
    np.testing.assert_allclose(predictions(output), files.expected, atol=1e-5)


@pytest.mark.parametrize("options", [{"split": "images"}, {"split": "rows"}, {"code": "crme"}])
def test_infer_never_returns_what_malformed_shares_make(
    files: Files, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    images = zarr.open_group(files.images, mode="r")["image"]
    assert isinstance(images, zarr.Array)
    lazy = infer(open_model(files.model), images[:], batch=16, **options)
    original = share_checks.as_message

    def wrong(held: Any, layer: int, position: int, values: Array, entering: Any) -> Any:
        values = one_image_more(values) if position == 1 else values
        return original(held, layer, position, values, entering)

    for module in (gathered_kernels, image_kernels, row_kernels):
        monkeypatch.setattr(module, "as_message", wrong)
    with pytest.raises(WrongSharesError, match=r"share 1 .*shape"):
        lazy.compute(scheduler="threads")
