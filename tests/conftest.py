"""Settings for all tests: one thread for torch, and how hard Hypothesis tries."""

from __future__ import annotations

import os

import pytest
import torch
from hypothesis import HealthCheck, settings

from support.small import Files, make_files

torch.set_num_threads(1)

# What somebody has measured on this machine is not for tests; Dask reads it when it is imported.
os.environ["DASK_FCDCC__CALIBRATION_FILE"] = "/nonexistent/calibration.json"

settings.register_profile(
    "ci",
    deadline=None,
    derandomize=True,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("dev", deadline=None)
settings.load_profile(
    os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") == "true" else "dev")
)


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """A small model and images; only to be read."""
    return make_files(tmp_path_factory.mktemp("small"))
