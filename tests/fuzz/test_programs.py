"""Random programs of all listed operators, each in two processes with different memory.

In one process fresh and freed memory is filled with one byte, in the other with another
(``MALLOC_PERTURB_``, ``PYTHONMALLOC=debug``), and the programs come in the other order. A program
that reads what it has not written, or writes where it may not, ends a process or makes two
predictions.

With ``FCDCC_FUZZ_SECONDS`` for so long (``make fuzz``), other programs each time.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fcdcc.coding.errors import FcdccError
from fcdcc.pipeline import open_model
from fcdcc.pipeline.model.interpreter import run_network
from support.operator_programs import SHAPE, opened, random_model

PROGRAMS = 100
"""Programs that a process runs."""

PATIENCE = 20.0
"""Seconds of CPU time that one program may take."""

REFUSED = "refused"

pytestmark = [pytest.mark.long, pytest.mark.timeout(7200)]


def prediction(seed: int) -> Any:
    """Return what a program predicts for some images; its refusal, or what else it raised."""
    data = random_model(seed)
    signal.setitimer(signal.ITIMER_PROF, PATIENCE)
    try:
        opened(data)  # and each image by itself
        network = open_model(data).network
        images = torch.rand(
            network.input_shape[0] or 3, *SHAPE, generator=torch.Generator().manual_seed(2)
        )
        return run_network(network, images.to(network.input_dtype)).numpy()
    except FcdccError:
        return REFUSED
    except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
        return f"{type(error).__name__}: {error}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def main(first: int, backwards: bool, results: Path) -> None:
    """Run programs; say which begins, and save what they predict."""

    def late(*_: object) -> None:
        raise TimeoutError(f"a program took more than {PATIENCE} s of CPU time")

    signal.signal(signal.SIGPROF, late)
    torch.set_num_threads(1)
    seeds = range(first, first + PROGRAMS)
    made = {}
    for seed in reversed(seeds) if backwards else seeds:
        sys.stdout.write(f"{seed}\n")
        sys.stdout.flush()
        made[seed] = prediction(seed)
    results.write_bytes(pickle.dumps(made))


def run_programs(first: int, backwards: bool, folder: Path) -> dict[int, Any]:
    """Return what programs predict in a process of their own."""
    results = folder / f"{first}-{backwards}.pickle"
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),  # as pytest was configured
        "PYTHONMALLOC": "debug",
        "MALLOC_PERTURB_": "85" if backwards else "170",
    }
    command = [sys.executable, "-X", "faulthandler", __file__, first, int(backwards), results]
    done = subprocess.run(
        [*map(str, command)], capture_output=True, text=True, check=False, env=environment
    )
    if done.returncode:
        last = done.stdout.split()[-1:]
        text = f"the process ended with {done.returncode} in {last}: {done.stderr[-3000:]}"
        return {int(seed): text for seed in last}
    found: dict[int, Any] = pickle.loads(results.read_bytes())
    results.unlink()
    return found


def findings(one: dict[int, Any], other: dict[int, Any]) -> list[str]:
    """Return what is wrong with programs, by their predictions in two processes."""
    found = []
    for seed in {**one, **other}:
        given = [made[seed] for made in (one, other) if seed in made]
        errors = {item for item in given if isinstance(item, str) and item != REFUSED}
        if errors:
            found += [f"program {seed}: {error}" for error in errors]
        elif len(given) == 2 and not _equal(*given):
            found.append(f"program {seed}: {given[0]} and {given[1]}")
    return found


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, str) or isinstance(other, str):
        return bool(isinstance(one, str) and isinstance(other, str))
    return bool(np.array_equal(one, other, equal_nan=one.dtype.kind in "fc"))


def test_programs_in_processes_that_differ(tmp_path: Path) -> None:
    end = time.monotonic() + float(os.environ.get("FCDCC_FUZZ_SECONDS", "30"))
    first, wrong, right, refused = time.time_ns() // 1000, list[str](), 0, 0
    while True:
        one, other = (run_programs(first, backwards, tmp_path) for backwards in (False, True))
        wrong += findings(one, other)
        refused += sum(isinstance(made, str) for made in one.values())
        right += sum(not isinstance(made, str) for made in one.values())
        first += PROGRAMS
        sys.stdout.write(f"{right} programs ran, {refused} were refused, {len(wrong)} are wrong\n")
        sys.stdout.flush()
        if time.monotonic() > end:
            break
    assert wrong == [], "\n".join(wrong)
    assert right
    assert refused


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2] == "1", Path(sys.argv[3]))
