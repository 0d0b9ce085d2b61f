"""Settings for all tests: one thread for torch, how hard Hypothesis tries, forked workers, logs."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import dask
import pytest
import torch
from hypothesis import HealthCheck, settings

from support import fork_server
from support.small import Files, make_files

ROOT = Path(__file__).parents[1]

torch.set_num_threads(1)

# Dask's own settings for worker processes, for those that are forked as well.
for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")

# Processes that tests start run the sources that the tests are of.
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(ROOT / layer) for layer in ("coding", "storage", "pipeline")]
    + os.environ.get("PYTHONPATH", "").split(os.pathsep)
).rstrip(os.pathsep)

# What somebody has measured on this machine is not for tests; Dask reads it when it is imported.
os.environ["DASK_FCDCC__CALIBRATION_FILE"] = "/nonexistent/calibration.json"

dask.config.set(fork_server.settings())

settings.register_profile(
    "ci",
    deadline=None,
    derandomize=True,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("dev", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.fixture(scope="session", autouse=True)
def forked_workers() -> None:
    """Have clusters of worker processes start quickly."""
    if "distributed" in sys.modules:
        fork_server.use_fork_server()


@pytest.fixture(autouse=True)
def usual_logs() -> Iterator[None]:
    """Undo what a command in this process has set: ``caplog`` needs logs that propagate."""
    logger = logging.getLogger("fcdcc")
    before = logger.handlers[:], logger.level, logger.propagate
    yield
    logger.handlers[:], level, logger.propagate = before
    logger.setLevel(level)  # it also clears what loggers remember of earlier levels


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """A small model and images; only to be read."""
    return make_files(tmp_path_factory.mktemp("small"))
