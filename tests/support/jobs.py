"""Commands and outputs of jobs, as the tests of whole jobs use them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from click.testing import CliRunner, Result
from numpy.typing import NDArray

from fcdcc.pipeline.cli import main
from fcdcc.storage import open_predictions


def fcdcc(*arguments: object) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def predictions(output: Path) -> NDArray[Any]:
    """Return what a job has stored."""
    values: NDArray[Any] = xr.open_zarr(output)["prediction"].values
    return values


def recorded_chunks(output: Path) -> dict[int, bytes]:
    """Return what is stored of the blocks that are recorded now."""
    done = np.flatnonzero(open_predictions(output).progress().done)
    return {int(b): (output / "prediction" / f"c.{b}.0").read_bytes() for b in done}
