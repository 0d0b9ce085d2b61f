"""The server that worker processes are forked from, made of the command's own process."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from psutil import NoSuchProcess, Process

from fcdcc.pipeline import JobConfig
from fcdcc.pipeline.runtime import cluster
from support.fork_server import worker_processes
from support.small import Files

PROGRAM = """
import logging, multiprocessing, os, signal, sys, threading
from fcdcc.pipeline.runtime.fork_server import fork_this_process

def look(connection):
    connection.send({
        "server": os.getppid(),
        "imported": "colorsys" in sys.modules,
        "handlers": [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)],
        "logs": logging.getLogger("fcdcc").handlers,
        "is_child": multiprocessing.parent_process() is not None,
    })

def child():
    ours, theirs = context.Pipe()
    process = context.Process(target=look, args=(theirs,))
    process.start()
    found = ours.recv()
    process.join()
    assert process.exitcode == 0
    return found

if __name__ == "__main__":
    import colorsys
    context = multiprocessing.get_context("forkserver")
    signal.signal(signal.SIGTERM, lambda *_: None)
    signal.signal(signal.SIGINT, lambda *_: None)
    logging.getLogger("fcdcc").handlers = [logging.NullHandler()]
    with_thread = sys.argv[1:] == ["thread"]
    if with_thread:
        threading.Thread(target=threading.Event().wait, daemon=True).start()
    assert fork_this_process() == (not with_thread)
    if not with_thread:
        assert not fork_this_process()  # there is one already
        found = [child(), child()]
        assert found[0] == found[1]
        assert found[0]["server"] != os.getpid() and found[0]["imported"] and found[0]["is_child"]
        assert found[0]["handlers"] == [signal.SIG_DFL, signal.default_int_handler]
        assert found[0]["logs"] == []
        print(found[0]["server"])
"""

linux = pytest.mark.skipif(sys.platform != "linux", reason="other systems start a new server")


def program(folder: Path, *arguments: str) -> str:
    """Run the program, which must succeed, and return what it prints."""
    file = folder / "program.py"
    file.write_text(PROGRAM)
    command = [sys.executable, str(file), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@linux
def test_children_have_what_the_process_has_imported_and_nothing_else_of_it(tmp_path: Path) -> None:
    server = program(tmp_path)
    with pytest.raises(NoSuchProcess):
        Process(int(server))


@linux
def test_a_process_with_threads_is_not_forked(tmp_path: Path) -> None:
    assert program(tmp_path, "thread") == ""


@linux
@pytest.mark.cluster
@pytest.mark.long
def test_a_command_whose_worker_is_killed_while_it_starts_finishes(
    files: Files, tmp_path: Path
) -> None:
    command = [
        sys.executable, "-m", "fcdcc.pipeline", "run", str(files.model), str(files.images),
        str(tmp_path / "out.zarr"), "--workers", "2", "--dashboard-address", "127.0.0.1:0",
    ]  # fmt: skip
    running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        while not (workers := worker_processes(running.pid)) and running.poll() is None:
            time.sleep(0.01)
        # Workers are forks of the command: their command line is that of the command.
        assert "fcdcc.pipeline" in workers[0].cmdline()
        workers[0].kill()
        _, messages = running.communicate(timeout=200)
    finally:
        running.kill()
    assert running.returncode == 0, messages
    assert "complete" in messages


@pytest.mark.cluster
@pytest.mark.parametrize(
    "number", [signal.SIGSTOP, pytest.param(signal.SIGKILL, marks=pytest.mark.long)]
)
def test_a_local_cluster_replaces_a_worker_that_does_not_start(
    monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    monkeypatch.setattr(cluster, "START_SECONDS", 3.0)
    before, hit = set(worker_processes()), threading.Event()

    def hit_one() -> None:
        while not (started := set(worker_processes()) - before):
            time.sleep(0.01)
        started.pop().send_signal(number)
        hit.set()

    watcher = threading.Thread(target=hit_one)
    watcher.start()
    config = JobConfig(model="m", input="i", output="o", workers=2, dashboard_address="127.0.0.1:0")
    with cluster.open_cluster(config) as found:
        watcher.join()
        found.client.wait_for_workers(2, timeout=100)
