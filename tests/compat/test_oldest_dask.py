"""The oldest distributed that is supported, in an environment of its own: plugin and graphs."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

from fcdcc.pipeline.anyk.scheduler import dask_contract as contract

ROOT = Path(__file__).parents[2]
TESTS = (
    "anyk/scheduler/test_dask_contract.py",
    "anyk/scheduler/test_anyk_plugin.py",
    "anyk/state_machine/test_speculation.py",
    "anyk/test_tasks.py",
    "anyk/test_client_loop.py",
    "graph/test_graph.py",
    "runtime/test_infer.py",
    "runtime/test_infer_weights.py",
)
"""In ``tests/pipeline``: what depends on the version of Dask."""


@pytest.fixture(scope="module")
def oldest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the oldest Dask, to stand before the one that is installed."""
    folder = tmp_path_factory.mktemp("oldest")
    wanted = [f"{name}=={contract.OLDEST}" for name in ("dask", "distributed")]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", folder, *wanted],
        capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode != 0:
        pytest.skip(f"the package index does not have it: {done.stderr[-300:]}")
    return folder


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_the_plugin_works_with_the_oldest_dask(oldest: Path) -> None:
    layers = [str(ROOT / layer) for layer in ("coding", "storage", "pipeline")]
    path = os.pathsep.join([str(oldest), *layers, sysconfig.get_path("purelib")])
    files = [str(ROOT / "tests" / "pipeline" / name) for name in TESTS]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:]


def test_the_files_are_there() -> None:
    assert [name for name in TESTS if not (ROOT / "tests" / "pipeline" / name).exists()] == []


def test_what_is_asked_for_is_what_was_tested() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    pinned = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    for name in ("dask", "distributed"):
        assert f"{name}>={contract.OLDEST}" in project["dependencies"]
        assert f"{name}=={contract.NEWEST}" in pinned


def test_the_installed_dask_is_one_that_was_tested() -> None:
    assert contract.breaches() == []
    assert not contract.is_untested(version("distributed"))
    assert contract.is_untested("2099.1.0")
