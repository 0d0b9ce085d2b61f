from __future__ import annotations

import contextlib
import datetime as dt
import errno
import fcntl
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock
import fsspec
import pytest

from fcdcc.storage import LockedError, OutputError, hold, locking, set_aside
from fcdcc.storage.objects import ObjectFolder
from support.stored import fill, make_output

HOLDER = """
import sys, time
from fcdcc.storage import hold
with hold(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
print("released", flush=True)
"""

CONTENDER = """
import sys
import time
from contextlib import suppress
from pathlib import Path
from fcdcc.storage import LockedError, hold
alone = Path(sys.argv[1] + ".alone")
held = 0
while held < int(sys.argv[2]):
    with suppress(LockedError), hold(sys.argv[1]):
        alone.touch(exist_ok=False)
        alone.unlink()
        held += 1
"""
"""Holds the lock many times, and fails if another process holds it at the same time."""


@contextlib.contextmanager
def holder(url: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock of an output."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def test_one_run_at_a_time(place: str) -> None:
    with hold(f"{place}/out"):
        with (
            pytest.raises(LockedError, match=f"process {os.getpid()} on {socket.gethostname()}"),
            hold(f"{place}/out"),
        ):
            raise AssertionError
        with hold(f"{place}/other"):
            pass
    with hold(f"{place}/out"):
        pass


def test_the_lock_is_released_when_the_run_fails(place: str) -> None:
    with contextlib.suppress(ZeroDivisionError), hold(f"{place}/out"):
        raise ZeroDivisionError
    with hold(f"{place}/out"):
        pass


def test_another_process_is_named_and_its_lock_ends_with_it(tmp_path: Path) -> None:
    with holder(str(tmp_path / "out")) as process:
        with (
            pytest.raises(LockedError, match=f"process {process.pid} on .* since 20"),
            hold(tmp_path / "out"),
        ):
            raise AssertionError
        process.send_signal(signal.SIGKILL)
        process.wait()
        with hold(tmp_path / "out"):
            pass


def test_a_stopped_run_holds_its_lock(tmp_path: Path) -> None:
    with holder(str(tmp_path / "out")) as process:
        process.send_signal(signal.SIGSTOP)
        with pytest.raises(LockedError, match=f"process {process.pid}"), hold(tmp_path / "out"):
            raise AssertionError


def test_a_run_that_ends_lets_the_next_begin(tmp_path: Path) -> None:
    with holder(str(tmp_path / "out")) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        assert process.stdout.readline() == "released\n"
        with hold(tmp_path / "out"):
            pass


def test_nothing_stays_beside_an_output(tmp_path: Path) -> None:
    with hold(tmp_path / "out"):
        assert {path.name for path in tmp_path.iterdir()} == {".out.lock", ".out.lock.json"}
    with contextlib.suppress(ZeroDivisionError), hold(tmp_path / "out"):
        raise ZeroDivisionError
    assert not [*tmp_path.iterdir()]


def test_what_a_killed_run_left_beside_an_output_goes_with_the_next(tmp_path: Path) -> None:
    with holder(str(tmp_path / "out")):
        pass  # it is killed
    assert (tmp_path / ".out.lock").exists()
    with hold(tmp_path / "out"):
        pass
    assert not [*tmp_path.iterdir()]


def test_processes_that_contend_never_hold_a_lock_together(tmp_path: Path) -> None:
    contenders = [
        subprocess.Popen([sys.executable, "-c", CONTENDER, str(tmp_path / "out"), "200"])
        for _ in range(2)
    ]
    assert [contender.wait() for contender in contenders] == [0, 0]
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("taken", [False, True], ids=["free", "taken"])
def test_a_lock_file_that_is_removed_after_it_was_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, taken: bool
) -> None:
    """The holder ends between the moments when another one opens the file and locks it."""
    lock = fcntl.flock
    others = contextlib.ExitStack()

    def lock_later(descriptor: int, operation: int) -> None:
        monkeypatch.setattr(fcntl, "flock", lock)
        first.stdin.close()  # type: ignore[union-attr] # it is a pipe
        first.wait()
        if taken:
            others.enter_context(holder(str(tmp_path / "out")))
        lock(descriptor, operation)

    with holder(str(tmp_path / "out")) as first, others:
        monkeypatch.setattr(fcntl, "flock", lock_later)
        if taken:
            with pytest.raises(LockedError), hold(tmp_path / "out"):
                raise AssertionError
        else:
            with hold(tmp_path / "out"), pytest.raises(LockedError), hold(tmp_path / "out"):
                raise AssertionError


def test_a_run_that_begins_while_another_releases_its_lock_keeps_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It begins between the moments when the other one removes the file and unlocks it."""
    release = filelock.UnixFileLock.release
    others = contextlib.ExitStack()

    def release_later(lock: filelock.UnixFileLock, *args: bool, **options: bool) -> None:
        monkeypatch.setattr(filelock.UnixFileLock, "release", release)
        others.enter_context(holder(str(tmp_path / "out")))
        release(lock, *args, **options)

    with others:
        with hold(tmp_path / "out"):
            monkeypatch.setattr(filelock.UnixFileLock, "release", release_later)
        with pytest.raises(LockedError), hold(tmp_path / "out"):
            raise AssertionError


def test_a_lock_file_that_gets_another_name_after_it_was_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On NFS a file that is open gets another name when it is removed, and keeps its link."""
    lock = fcntl.flock

    def lock_later(descriptor: int, operation: int) -> None:
        if (tmp_path / ".out.lock").exists():  # newer versions first try whether there are locks
            monkeypatch.setattr(fcntl, "flock", lock)
            (tmp_path / ".out.lock").rename(tmp_path / ".nfs0001")
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", lock_later)
    with hold(tmp_path / "out"), pytest.raises(LockedError), hold(tmp_path / "out"):
        raise AssertionError
    assert {path.name for path in tmp_path.iterdir()} == {".nfs0001"}


@pytest.mark.parametrize("always", [False, True], ids=["once", "always"])
def test_a_lock_file_that_another_host_removed_after_it_was_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, always: bool
) -> None:
    lock = fcntl.flock

    def fail(descriptor: int, operation: int) -> None:
        if not always:
            monkeypatch.setattr(fcntl, "flock", lock)
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    monkeypatch.setattr(fcntl, "flock", fail)
    if always:
        with pytest.raises(OutputError, match="cannot be locked: Stale"), hold(tmp_path / "out"):
            raise AssertionError
    else:
        with hold(tmp_path / "out"), pytest.raises(LockedError), hold(tmp_path / "out"):
            raise AssertionError


def test_the_lock_of_another_run_that_took_the_files_name_is_not_removed(tmp_path: Path) -> None:
    with hold(tmp_path / "out"):
        (tmp_path / ".out.lock").unlink()  # somebody tidies up
        others = contextlib.ExitStack()
        process = others.enter_context(holder(str(tmp_path / "out")))
    with (
        others,
        pytest.raises(LockedError, match=f"process {process.pid}"),
        hold(tmp_path / "out"),
    ):
        raise AssertionError


def test_one_output_has_one_lock_whatever_it_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    for name in ("data/out", "link/out", f"file://{tmp_path}/data/out", "data/../data/out/"):
        with hold(tmp_path / "data/out"), pytest.raises(LockedError), hold(name):
            raise AssertionError


def test_an_output_is_put_aside_and_made_anew_under_one_lock(place: str) -> None:
    with hold(f"{place}/out"):
        fill(make_output(f"{place}/out"))
        set_aside(f"{place}/out")
        fill(make_output(f"{place}/out"))
        with pytest.raises(LockedError), hold(f"{place}/out"):
            raise AssertionError


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for url in (tmp_path / "file/out", "nosuch://x/out"):
        with pytest.raises(OutputError, match=r"cannot be (locked|reached)"), hold(url):
            raise AssertionError


LOCK = ".out.lock.json"


@pytest.fixture
def bucket() -> Iterator[Any]:
    """The files of an object store, ours at ``memory://lock``."""
    files = fsspec.filesystem("memory")
    yield files
    files.rm("memory://lock", recursive=True)


def ago(seconds: float) -> str:
    return (dt.datetime.now(dt.UTC) - dt.timedelta(seconds=seconds)).isoformat()


def dead_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def own_lock(bucket: Any) -> dict[str, object]:
    """What a lock says that this process holds."""
    with hold("memory://lock/out"):
        found = json.loads(bucket.cat_file(f"memory://lock/{LOCK}"))
    assert isinstance(found, dict)
    return found


def test_the_lock_object_of_another_container_holds_while_it_is_refreshed(bucket: Any) -> None:
    """The restarted container has the same host name, and the same process number."""
    left = {**own_lock(bucket), "boot": "another", "started": 1, "refreshed": ago(60)}
    bucket.pipe_file(f"memory://lock/{LOCK}", json.dumps(left).encode())
    with (
        pytest.raises(LockedError, match=f"process {os.getpid()} on") as held,
        hold("memory://lock/out"),
    ):
        raise AssertionError
    silent, left = map(int, re.findall(r"(\d+) s (?:ago|or later)", str(held.value)))
    assert 59 <= silent < 120  # times in a lock are whole seconds
    assert silent + left == 301  # so that trying again after that time is late enough


def test_how_long_the_lock_of_a_process_of_this_machine_is_kept_is_not_said(bucket: Any) -> None:
    """Its end is seen at once."""
    bucket.pipe_file("memory://lock/other", b"")
    with hold("memory://lock/out"), pytest.raises(LockedError) as held, hold("memory://lock/out"):
        raise AssertionError
    assert "sign of life" not in str(held.value)


@pytest.mark.parametrize(
    "case",
    [
        "other host, stale",
        "this host, dead",
        "unreadable",
        "no process can have this number",
        "a time without a zone",
        "this process number, another process",
        "this process number, another container, stale",
    ],
)
def test_the_lock_object_of_a_dead_run_is_taken_over(bucket: Any, case: str) -> None:
    left = {
        "other host, stale": {"host": "elsewhere", "pid": 7, "refreshed": ago(600)},
        "this host, dead": {
            "host": socket.gethostname(), "pid": dead_process(), "refreshed": ago(1),
        },
        "unreadable": {"host": "elsewhere", "pid": 7, "refreshed": "yesterday"},
        "no process can have this number": {"host": socket.gethostname(), "pid": 10**20},
        "a time without a zone": {
            "host": "elsewhere", "pid": 7, "refreshed": "2026-01-01T00:00:00",
        },
        "this process number, another process": {
            **own_lock(bucket), "started": 1, "refreshed": ago(1),
        },
        "this process number, another container, stale": {
            **own_lock(bucket), "boot": "another", "refreshed": ago(600),
        },
    }[case]  # fmt: skip
    bucket.pipe_file(f"memory://lock/{LOCK}", json.dumps(left).encode())
    with (
        hold(url := "memory://lock/out"),
        pytest.raises(LockedError, match=str(os.getpid())),
        hold(url),
    ):
        raise AssertionError
    assert not bucket.exists(f"memory://lock/{LOCK}")
    bucket.pipe_file("memory://lock/keep", b"")


def test_the_lock_object_of_a_run_elsewhere_holds_while_it_is_refreshed(bucket: Any) -> None:
    there = {"host": "elsewhere", "pid": 7, "since": ago(9999), "refreshed": ago(60)}
    bucket.pipe_file(f"memory://lock/{LOCK}", json.dumps(there).encode())
    with (
        pytest.raises(LockedError, match="process 7 on elsewhere since"),
        hold("memory://lock/out"),
    ):
        raise AssertionError
    assert json.loads(bucket.cat_file(f"memory://lock/{LOCK}")) == there


def test_a_lock_object_is_refreshed_while_it_is_held(
    bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fcdcc.storage.locking.REFRESH_SECONDS", 0.01)
    with hold("memory://lock/out"):
        bucket.rm_file(f"memory://lock/{LOCK}")
        while not bucket.exists(f"memory://lock/{LOCK}"):  # until it is written anew
            pass
    assert not bucket.exists(f"memory://lock/{LOCK}")
    bucket.pipe_file("memory://lock/keep", b"")


@pytest.mark.parametrize("what", ["folder", "pipe", "link", "device", "nonsense"])
def test_what_lies_in_place_of_the_holders_name_neither_hinders_nor_is_written_to(
    tmp_path: Path, what: str
) -> None:
    name, other = tmp_path / ".out.lock.json", tmp_path / "other"
    other.write_text("theirs")

    def put() -> None:
        if what == "folder":
            name.mkdir()
        elif what == "pipe":
            os.mkfifo(name)
        elif what == "link":
            name.symlink_to(other)
        elif what == "device":
            name.symlink_to("/dev/zero")
        else:
            name.write_text("[" * 10**6)

    put()
    with hold(tmp_path / "out"):
        name.rmdir() if what == "folder" else name.unlink()
        put()  # and once more while the lock is held
        with pytest.raises(LockedError, match="another run"), hold(tmp_path / "out"):
            raise AssertionError
    with hold(tmp_path / "out"):
        pass
    assert other.read_text() == "theirs"


@pytest.mark.parametrize("what", ["folder", "link"])
def test_what_lies_in_place_of_the_lock_is_refused_in_words(tmp_path: Path, what: str) -> None:
    if what == "folder":
        (tmp_path / ".out.lock").mkdir()
    else:
        (tmp_path / "other").write_text("theirs")
        (tmp_path / ".out.lock").symlink_to("other")
    with pytest.raises(OutputError, match="cannot be locked"), hold(tmp_path / "out"):
        raise AssertionError
    if what == "link":
        assert (tmp_path / "other").read_text() == "theirs"


def test_a_run_whose_lock_another_run_took_over_leaves_it_to_that_run(
    bucket: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(locking, "REFRESH_SECONDS", 0.01)
    other = json.dumps({"host": "elsewhere", "pid": 7, "token": "another", "since": ago(1)})
    with hold("memory://lock/out"):
        while "this run has lost its lock" not in caplog.text:  # a refresh may overwrite the first
            bucket.pipe_file(f"memory://lock/{LOCK}", other.encode())
            time.sleep(0.01)
    assert bucket.cat_file(f"memory://lock/{LOCK}").decode() == other
    assert "is being written by process 7 on elsewhere" in caplog.text


@pytest.mark.parametrize("fails", [False, True])
def test_a_lock_that_cannot_be_removed_does_not_spoil_a_run(
    bucket: Any, fails: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(folder: ObjectFolder, name: str) -> bytes:
        raise OSError(503, f"slow down: {folder.location}/{name}")

    expected = pytest.raises(ValueError, match="of the run") if fails else contextlib.nullcontext()
    with expected, hold("memory://lock/out"):
        monkeypatch.setattr(ObjectFolder, "read", refuse)
        if fails:
            raise ValueError("an error of the run")
    assert "could not be removed" in caplog.text
