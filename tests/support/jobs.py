"""Commands and outputs of jobs, as the tests of whole jobs use them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from click.testing import CliRunner, Result
from numpy.typing import NDArray

from fcdcc.pipeline import Summary
from fcdcc.pipeline.cli import main
from fcdcc.storage import open_predictions, verify


def fcdcc(*arguments: object) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def predictions(output: Path) -> NDArray[Any]:
    """Return what a job has stored."""
    values: NDArray[Any] = xr.open_zarr(output)["prediction"].values
    return values


def assert_bad_worker_is_named(
    summary: Summary,
    output: Path,
    expected: NDArray[Any],
    tolerance: float,
    bad: str,
    status: str,
) -> None:
    """Assert that a job is right although one worker was wrong, and that this one is named.

    ``status`` is what the scheduler says of the bad worker at the end: a second wrong result
    pauses it.
    """
    assert summary.status == "complete"
    np.testing.assert_allclose(predictions(output), expected, atol=tolerance)
    assert verify(output) == []
    assert {found.worker for found in summary.corrupt_shares} == {bad}
    assert status == "paused" or len(summary.corrupt_shares) == 1


def recorded_chunks(output: Path) -> dict[int, bytes]:
    """Return what is stored of the blocks that are recorded now."""
    done = np.flatnonzero(open_predictions(output).progress().done)
    return {int(b): (output / "prediction" / f"c.{b}.0").read_bytes() for b in done}
