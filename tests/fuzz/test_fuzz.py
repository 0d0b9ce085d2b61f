"""Files from outside, damaged in every way: used or refused in words, never anything else.

Short here; with ``FCDCC_FUZZ_SECONDS`` each target is fed for so long (``make fuzz``), in a process
of its own with little memory, and what it does not take well is kept in ``corpus/``, from where
every run of the suite takes it.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.fuzz_targets import TARGETS, feed, samples

CORPUS = Path(__file__).parent / "corpus"
MEMORY = 6 * 2**30
"""Bytes of address space; PyTorch alone takes some."""

PATIENCE = 20.0
"""Seconds of CPU time that one input may take."""

STUCK_SECONDS = 900.0
"""Seconds on the clock after which an input counts as waiting for something that never happens. A
busy machine is never so slow that an input takes as long."""

JUNK: list[Any] = [
    None, True, -1, 0, 1, 2**31, 2**63, 1 << 70, 1e308, -0.5, "", "x", "../../x", "/etc/passwd",
    "\0", "a" * 300, [], {}, [[]], {"as_int": 3}, [1] * 40, "__import__('os')", "tcp://", "\ud800",
    "a\nb",
]  # fmt: skip


def bent(value: Any, draw: random.Random) -> Any:
    """Return decoded JSON with one or two of its values replaced, left out or doubled."""
    value = json.loads(json.dumps(value))
    for _ in range(draw.choice((1, 1, 2))):
        place, parent, key = value, None, None
        while isinstance(place, (dict, list)) and place:
            parent = place
            key = draw.choice([*place]) if isinstance(place, dict) else draw.randrange(len(place))
            place = place[key]
            if draw.random() < 0.15:
                break
        if parent is None:
            return copy.deepcopy(draw.choice(JUNK))
        what = draw.randrange(6)
        if what == 0:
            del parent[key]
        elif what == 1 and isinstance(place, int) and not isinstance(place, bool):
            parent[key] = draw.choice((-place, place + 1, place * 1000, 10**12, place - 1, 0.5))
        elif what == 2 and isinstance(parent, list):
            parent.append(place)
        else:
            parent[key] = copy.deepcopy(draw.choice(JUNK))
    return value


def mutated(data: bytes, draw: random.Random) -> bytes:
    """Return bytes that were damaged, or JSON that was bent."""
    try:
        decoded = json.loads(data)
    except ValueError:
        decoded = None
    if decoded is not None and draw.random() < 0.8:
        return json.dumps(bent(decoded, draw)).encode()
    content = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 5))):
        where = draw.randrange(len(content) + 1)
        what = draw.randrange(5)
        if what == 0:
            del content[where : where + draw.choice((1, 2, 8, 100))]
        elif what == 1:
            content[where:where] = draw.randbytes(draw.choice((1, 4, 50)))
        elif what == 2:
            content[where:where] = content[where : where + 40] * draw.choice((1, 3))
        elif where < len(content):
            content[where] = draw.choice((0, 255, 127, content[where] ^ (1 << draw.randrange(8))))
    return bytes(content)


def kept(name: str) -> list[bytes]:
    """Return the inputs that once were not taken well."""
    return [file.read_bytes() for file in sorted((CORPUS / name.strip(".")).glob("*"))]


def feed_in_new_folder(name: str, data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        feed(name, data, Path(folder))


@pytest.mark.parametrize("name", TARGETS)
def test_right_inputs_are_used(name: str, tmp_path: Path) -> None:
    for number, data in enumerate(samples()[name]):
        folder = tmp_path / str(number)
        folder.mkdir()
        TARGETS[name](data, folder)


@pytest.mark.parametrize("name", TARGETS)
def test_what_once_was_not_taken_well(name: str) -> None:
    for data in kept(name):
        feed_in_new_folder(name, data)


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=25)
@given(seed=st.integers(0, 2**32), junk=st.one_of(st.none(), st.binary(max_size=60)))
def test_damaged_inputs_are_used_or_refused(name: str, seed: int, junk: bytes | None) -> None:
    draw = random.Random(seed)
    data = mutated(draw.choice(samples()[name]), draw) if junk is None else junk
    feed_in_new_folder(name, data)


@pytest.mark.long
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("name", TARGETS)
def test_for_long(name: str) -> None:
    seconds = os.environ.get("FCDCC_FUZZ_SECONDS", "30")
    command = [sys.executable, __file__, name, seconds]
    path = os.pathsep.join(filter(None, sys.path))  # as pytest was configured
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]


def main(name: str, seconds: float) -> int:
    """Feed one target for so long; keep and count what it does not take well."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    seed = time.time_ns()
    draw, end, inputs, findings = random.Random(seed), time.monotonic() + seconds, 0, 0
    pool = [*samples()[name], *kept(name)]
    while time.monotonic() < end:
        data = mutated(draw.choice(pool), draw)
        inputs += 1
        signal.setitimer(signal.ITIMER_PROF, PATIENCE)
        signal.setitimer(signal.ITIMER_REAL, STUCK_SECONDS)
        try:
            feed_in_new_folder(name, data)
        except (Exception, MemoryError) as error:  # noqa: BLE001 - whatever it is, it is a finding
            findings += 1
            place = CORPUS / name.strip(".")
            place.mkdir(parents=True, exist_ok=True)
            (place / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)
            sys.stdout.write(f"{name}: {type(error).__name__}: {str(error)[:300]}\n")
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.setitimer(signal.ITIMER_REAL, 0)
        if draw.random() < 0.02 and len(pool) < 200:  # damage upon damage
            pool.append(data)
    sys.stdout.write(f"{name}: {inputs} inputs, {findings} findings, {seconds:.0f} s\n")
    return 1 if findings else 0


if __name__ == "__main__":

    def slow(*_: object) -> None:
        raise TimeoutError(f"an input took more than {PATIENCE} s of CPU time")

    def stuck(*_: object) -> None:
        raise TimeoutError(f"an input took longer than {STUCK_SECONDS} s")

    signal.signal(signal.SIGPROF, slow)
    signal.signal(signal.SIGALRM, stuck)
    sys.exit(main(sys.argv[1], float(sys.argv[2])))
