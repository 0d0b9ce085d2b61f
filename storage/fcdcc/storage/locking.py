"""The lock beside an output: one run at a time writes it.

A local output is locked by the operating system, which releases the lock when its holder ends.
The holder removes the lock file last, while it still has the lock. Another process that opened
the file before then locks a file that no longer has this name. So whoever locks a file compares it
with the file that has the name now, and tries again if they differ. This needs neither the number
of links that ``filelock`` looks at, nor a file system that counts them: on NFS a file that is
removed while it is open gets another name and keeps its link. The release of ``filelock`` must not
remove the file, which may be that of another run by then: versions before 3.30 are not taken.

On NFS the locks of processes on different hosts keep them apart only if the server has locks and
the mount uses them (not with ``nolock`` or ``local_lock``). A host may see a name that another host
removed for as long as it caches directories, usually some seconds: a run that begins on one host
just when a run ends on another may then hold the removed file, and a third run the new one. Do
not start runs with the same output at the same time on several hosts there.

In an object store the lock is an object that its holder refreshes; another run takes it over if
it was not refreshed for ``STALE_SECONDS``, or at once if its holder is a process of this machine
that has ended. A process number alone does not name a process: in a container it is nearly always
1. So a lock also says which boot of the machine and which container its holder belongs to, and
when the holder started. Object stores
have no real locks: this keeps two scheduled jobs apart, but fails if the clocks of two machines
differ by minutes, or if a run does not refresh its lock for longer than that and goes on
afterwards. Such a run says that another one has taken over, and leaves the lock to it.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import errno
import json
import logging
import os
import socket
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import filelock

from .errors import LockedError, OutputError
from .files import Folder
from .locations import is_local, normalise, shown
from .objects import open_folder
from .regular_files import read_regular

__all__ = ["hold", "holder_state"]

logger = logging.getLogger(__name__)

REFRESH_SECONDS = 30.0
"""Time between two refreshes of a lock in an object store."""

STALE_SECONDS = 300.0
"""Time without a refresh after which another run takes over a lock in an object store."""

MAX_TRIES = 3
"""How often a local lock is tried whose file may have been removed just then by its holder."""

MAX_HOLDER_BYTES = 2**16
"""Largest file with the holder of a lock that is read."""


@contextlib.contextmanager
def hold(url: str | os.PathLike[str]) -> Iterator[None]:
    """Hold the lock of an output; for use in a ``with`` statement.

    The lock lies beside the output, so that it can be held before the output exists and while
    it is put aside.

    Raises
    ------
    LockedError
        If another run holds it; the message says which.
    OutputError
        If the parent folder of the output cannot be written.
    """
    location = normalise(url)
    with _hold_local(location) if is_local(location) else _hold_object(location):
        yield


@contextlib.contextmanager
def _hold_local(location: str) -> Iterator[None]:
    output = Path(location)
    path = output.parent / f".{output.name}.lock"
    holder = output.parent / f".{output.name}.lock.json"
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        lock = _lock_file(path)
    except filelock.Timeout:
        raise LockedError(_held(location, _read_holder(holder))) from None
    except OSError as error:
        raise OutputError(
            f"{location} cannot be locked: {error.strerror or error}; expected a folder that can "
            "be written"
        ) from error
    locked = _identity(path)
    try:
        _write_holder(holder)
        yield
    finally:
        if locked == _identity(path):  # else another run has a lock file of this name by now
            with contextlib.suppress(OSError):
                holder.unlink(missing_ok=True)
            # Where the file system has no locks, the file itself is the lock; release removes it.
            if isinstance(lock, filelock.UnixFileLock):
                with contextlib.suppress(OSError):  # the file stays, which does no harm
                    path.unlink()
        lock.release()


def holder_state(url: str | os.PathLike[str]) -> Literal["there", "ended", "unknown"]:
    """Return whether the process that an output's lock names is there.

    ``ended``: it was a process of this machine and was killed, or it would have removed the lock.
    ``unknown``: it is of another machine, or there is no lock that can be read.
    """
    location = normalise(url)
    if is_local(location):
        output = Path(location)
        holder = _read_holder(output.parent / f".{output.name}.lock.json")
    else:
        parent, _, name = location.rpartition("/")
        try:
            holder = _parse_object(open_folder(parent), f".{name}.lock.json")
        except OSError:
            return "unknown"
    has_ended = None if holder is None else _has_ended_here(holder)
    return "unknown" if has_ended is None else "ended" if has_ended else "there"


def _lock_file(path: Path) -> filelock.BaseFileLock:
    """Return the lock of a file, which this process holds now.

    Raises
    ------
    filelock.Timeout
        If another process holds it.
    OSError
        If it cannot be locked.
    """
    for tries_left in reversed(range(MAX_TRIES)):
        lock = filelock.FileLock(path, blocking=False, thread_local=False)
        try:
            lock.acquire()
            if not isinstance(lock, filelock.UnixFileLock) or _has_name(lock, path):
                return lock
            lock.release()
        except OSError as error:
            # ESTALE: another host of a network file system removed the file.
            may_pass = isinstance(error, filelock.Timeout) or error.errno == errno.ESTALE
            if not (tries_left and may_pass):
                raise
    raise filelock.Timeout(os.fspath(path))


def _has_name(lock: filelock.UnixFileLock, path: Path) -> bool:
    """Return whether the file that is locked is still the one at its path."""
    descriptor = lock._context.lock_file_fd  # filelock has no public name for it
    if descriptor is None:
        return False
    found = os.fstat(descriptor)
    return _identity(path) == (found.st_dev, found.st_ino)


def _identity(path: Path) -> tuple[int, int] | None:
    """Return what tells a file from others that had or get its name; None if there is none."""
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _write_holder(path: Path) -> None:
    """Write who holds the lock, as far as possible: it is only for messages of other runs.

    The file is put in place of whatever has its name: a link is not followed, and a pipe not
    written to.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    with contextlib.suppress(OSError):
        try:
            partial.write_text(json.dumps(_me()), encoding="utf-8")
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


def _read_holder(path: Path) -> dict[str, object] | None:
    try:
        return _parse(read_regular(path, MAX_HOLDER_BYTES))
    except OSError:
        return None


@contextlib.contextmanager
def _hold_object(location: str) -> Iterator[None]:
    parent, _, name = location.rpartition("/")
    folder, lock = open_folder(parent), f".{name}.lock.json"
    mine = _me() | {"token": uuid.uuid4().hex}
    if not _take(folder, lock, mine):
        present = _parse_object(folder, lock)
        if present is not None and not _is_dead(present):
            raise LockedError(_held(location, present) + _patience(present))
        folder.write(lock, _stamped(mine))
        # If two runs take over at once, the last writer is the holder.
        taken = _parse_object(folder, lock)
        if taken is None or taken.get("token") != mine["token"]:
            raise LockedError(_held(location, taken))
    done = threading.Event()
    refresher = threading.Thread(
        target=_refresh, args=(location, folder, lock, mine, done), name="fcdcc-lock", daemon=True
    )
    refresher.start()
    try:
        yield
    finally:
        done.set()
        refresher.join()
        try:
            present = _parse_object(folder, lock)
            if present is not None and present.get("token") == mine["token"]:
                folder.delete([lock])
        except OSError as error:  # the run has ended all the same
            logger.warning(
                "the lock of %s could not be removed (%s): until it is %.0f s old, or on this "
                "machine until this process ends, other runs with this output are refused",
                shown(location), error, STALE_SECONDS,
            )  # fmt: skip


def _take(folder: Folder, lock: str, mine: dict[str, object]) -> bool:
    try:
        return folder.write(lock, _stamped(mine), exclusive=True)
    except OSError as error:
        raise OutputError(
            f"{shown(folder.location)} cannot be locked: {error}; expected a place that can be "
            "written"
        ) from error


def _refresh(
    location: str, folder: Folder, lock: str, mine: dict[str, object], done: threading.Event
) -> None:
    while not done.wait(REFRESH_SECONDS):
        with contextlib.suppress(OSError):  # the lock outlasts several failed refreshes
            present = _parse_object(folder, lock)
            if present is not None and present.get("token") != mine["token"]:
                logger.warning(
                    "this run has lost its lock, which it did not refresh for over %.0f s: %s",
                    STALE_SECONDS, _held(location, present),
                )  # fmt: skip
                return
            folder.write(lock, _stamped(mine))


def _me() -> dict[str, object]:
    pid = os.getpid()
    return {
        "host": socket.gethostname(),
        "boot": _boot(),
        "pid": pid,
        "started": _start_ticks(pid),
        "since": _now().isoformat(),
    }


def _boot() -> str | None:
    """Return what names this boot of the machine and this container; None where it is unknown.

    Two processes with the same answer number processes alike.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return None


def _start_ticks(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot; None where it is unknown."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        return int(fields.rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC).replace(microsecond=0)


def _stamped(mine: dict[str, object]) -> bytes:
    return json.dumps(mine | {"refreshed": _now().isoformat()}).encode()


def _parse(data: bytes) -> dict[str, object] | None:
    try:
        found = json.loads(data)
    except (RecursionError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _parse_object(folder: Folder, lock: str) -> dict[str, object] | None:
    try:
        return _parse(folder.read(lock))
    except FileNotFoundError:
        return None


def _has_ended_here(holder: dict[str, object]) -> bool | None:
    """Return whether a process of this machine has ended; None for one of another machine."""
    pid, boot = holder.get("pid"), holder.get("boot")
    is_here = holder.get("host") == socket.gethostname() and boot in (None, _boot())
    if not is_here or not isinstance(pid, int):
        return None
    started, found = holder.get("started"), _start_ticks(pid)
    return not _is_running(pid) or (None not in (started, found) and started != found)


def _is_dead(holder: dict[str, object]) -> bool:
    has_ended = _has_ended_here(holder)
    if has_ended is not None:
        return has_ended
    silent = _silent_seconds(holder)
    return silent is None or silent > STALE_SECONDS


def _silent_seconds(holder: dict[str, object]) -> float | None:
    """Return the time since a lock in an object store was refreshed; None if it does not say."""
    try:
        refreshed = dt.datetime.fromisoformat(str(holder.get("refreshed")))
        return (_now() - refreshed).total_seconds()
    except (TypeError, ValueError):  # not a time, or one without a time zone
        return None


def _patience(holder: dict[str, object]) -> str:
    """Return when a lock in an object store is taken over if its holder has died; or ''.

    It is empty for a process of this machine, whose end is seen at once.
    """
    silent = _silent_seconds(holder)
    if silent is None or _has_ended_here(holder) is not None:
        return ""
    seconds = max(0, round(silent))
    left = max(0, round(STALE_SECONDS) - seconds) + 1  # the time of the last sign was rounded, too
    return (
        f"; its last sign of life was {seconds} s ago, and if none follows, a run that begins in "
        f"{left} s or later takes the output over"
    )


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):  # no process has a number so large
        return False
    except PermissionError:
        return True
    return True


def _held(location: str, holder: dict[str, object] | None) -> str:
    who = (
        "another run"
        if holder is None
        else (f"process {holder.get('pid')} on {holder.get('host')} since {holder.get('since')}")
    )
    return f"{shown(location)} is being written by {who}: wait for it, or stop it"
