"""How commands end: what is printed, in which order, with which code, and what is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import click
import psutil
import pytest
from distributed import LocalCluster

from fcdcc.pipeline.cli.process_exit import interruptible
from fcdcc.storage import hold, open_predictions
from support.jobs import fcdcc
from support.small import Files

ON_THREADS = ("--threads", "--workers", 2, "--dashboard-address", "127.0.0.1:0")


def interfere(monkeypatch: pytest.MonkeyPatch, action: Callable[[], None]) -> None:
    """Have ``action`` called when the cluster of a run is about to be closed."""
    close = LocalCluster.close

    def closing(cluster: LocalCluster, timeout: float | None = None) -> None:
        close(cluster, timeout)
        action()

    monkeypatch.setattr(LocalCluster, "close", closing)


def test_a_run_is_complete_and_says_so_before_its_cluster_is_closed(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out.zarr"

    def closed() -> None:
        with hold(output):  # the next run may begin
            assert open_predictions(output).progress().complete
        click.echo("the cluster is closed", err=True)

    interfere(monkeypatch, closed)
    result = fcdcc("run", files.model, files.images, output, *ON_THREADS)
    assert result.exit_code == 0, result.output
    *said, last = result.stderr.splitlines()
    assert "complete: " in "\n".join(said)
    assert last == "the cluster is closed"


def test_ctrl_c_after_the_last_line_does_not_change_the_exit_code(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interfere(monkeypatch, lambda: signal.raise_signal(signal.SIGINT))
    result = fcdcc("run", files.model, files.images, tmp_path / "out.zarr", *ON_THREADS)
    assert result.exit_code == 0, result.output
    assert "interrupted" not in result.stderr


def in_session(leader: int) -> list[int]:
    """Return the ids of the processes of a session that still run."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if os.getsid(process.pid) == leader and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
    return found


def test_a_run_on_processes_leaves_nothing_behind_and_prints_little(
    files: Files, tmp_path: Path
) -> None:
    scratch = tmp_path / "scratch"
    command = ["run", files.model, files.images, tmp_path / "out.zarr", "--workers", 2]
    command += ["--n", 2, "--tolerate", 1, "--dashboard-address", "127.0.0.1:0"]
    process = subprocess.Popen(
        [sys.executable, "-m", "fcdcc.pipeline", *map(str, command)],
        stderr=subprocess.PIPE, text=True, start_new_session=True,
        env={**os.environ, "DASK_TEMPORARY_DIRECTORY": str(scratch)},
    )  # fmt: skip
    # This waits for all processes that have the pipe open.
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    starts = ("images: ", "prediction: ", "the dashboard is at ", "complete: ", "time: ",
              "redundancy: ", "the predictions are in ", "next: ")  # fmt: skip
    lines = said.splitlines()
    assert len(lines) == len(starts)
    for line, start in zip(lines, starts, strict=True):
        assert line.startswith(f"fcdcc: {start}")
    deadline = time.monotonic() + 30
    while in_session(process.pid) and time.monotonic() < deadline:  # some end a moment later
        time.sleep(0.01)
    assert in_session(process.pid) == []
    assert not [path for path in scratch.rglob("*") if path.name.startswith("worker-")]


@pytest.mark.parametrize(
    ("end", "code", "says"),
    [("3", 3, ""), ("None", 0, ""), ("'no such file'", 1, "no such file\n")],
)
def test_the_end_of_the_process_keeps_code_output_and_what_was_registered(
    end: str, code: int, says: str
) -> None:
    program = (
        "import atexit, sys; from fcdcc.pipeline.cli.process_exit import end_process; "
        f"atexit.register(print, 'registered'); sys.stdout.write('result '); end_process({end})"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (code, "result registered\n", says)


def test_a_signal_during_the_finalisation_of_an_object_is_not_lost() -> None:
    class Finalised:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGTERM)

    def finalise_one(held: list[Finalised]) -> None:
        held.clear()
        threading.Event().wait(60)

    with pytest.raises(KeyboardInterrupt), interruptible():
        finalise_one([Finalised()])
