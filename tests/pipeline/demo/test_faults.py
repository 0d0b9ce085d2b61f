from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

import psutil
import pytest

from fcdcc.pipeline.anyk.state_machine.history import ShareRecord
from fcdcc.pipeline.demo.faults import Stopper, WorkerNames, named_share


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as process:
        yield process
        process.kill()


def wait_for(process: psutil.Process, status: str) -> None:
    limit = time.monotonic() + 30
    while process.status() != status:
        assert time.monotonic() < limit, process.status()
        time.sleep(0.01)


def test_what_is_stopped_is_ended_even_when_something_fails(sleeper):
    process = psutil.Process(sleeper.pid)
    stopper = Stopper({"worker 3": process})

    def interrupted() -> None:
        with stopper:
            stopper.stop()
            wait_for(process, psutil.STATUS_STOPPED)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert sleeper.wait(timeout=30) == -9
    (fault,) = stopper.faults
    assert (fault.worker, fault.kind) == ("worker 3", "stopped")


def test_what_was_not_stopped_is_left_alone(sleeper):
    with Stopper({"worker 0": psutil.Process(sleeper.pid)}) as stopper:
        assert stopper.faults == []
    assert sleeper.poll() is None


def test_it_stops_once_and_does_not_mind_processes_that_have_ended(sleeper):
    process = psutil.Process(sleeper.pid)
    sleeper.kill()
    sleeper.wait()
    with Stopper({"worker 0": process}) as stopper:
        stopper.stop()
        stopper.stop()
    assert stopper.faults == []


def test_records_of_shares_get_names_of_workers():
    record = {"layer": 2, "block": 7, "position": 5, "stage": "share", "start": 3.0, "stop": 2.9}
    names = WorkerNames({"tcp://b": {"name": 1}, "tcp://a": {"name": 0}})
    known = named_share({**record, "worker": "tcp://b", "state": "erased"}, names)
    assert known == ShareRecord(2, 7, 5, "share", "worker 1", 3.0, 3.0, "erased")
    assert named_share({**record, "worker": "tcp://new", "state": "erred"}, names).worker == (
        "worker 2"
    )
    assert "tcp://new" in names
    assert "tcp://c" not in names
