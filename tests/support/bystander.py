"""Somebody else's work on a cluster on which jobs run: every task of it must run once."""

from __future__ import annotations

import time
import uuid
from pathlib import Path

from distributed import Client


class Bystander:
    """Somebody with many short tasks, whose results stay on the workers until they are fetched.

    Parameters
    ----------
    client
        Of its own, connected to the cluster.
    notes
        A file for what has run.
    tasks
        How many there are.
    """

    def __init__(self, client: Client, notes: Path, tasks: int) -> None:
        self._client = client
        self._notes = notes
        run = uuid.uuid4().hex[:8]
        self._futures = client.map(
            run_and_note, range(tasks), notes=str(notes), key=f"bystander-{run}", pure=False
        )

    def check(self, seconds: float) -> None:
        """Fetch the results and release them; check them, and that nothing has run twice."""
        numbers = range(len(self._futures))
        results = [future.result(timeout=seconds) for future in self._futures]
        self._futures.clear()
        assert results == [*numbers]
        ran = [int(line) for line in self._notes.read_text().splitlines()]
        assert sorted(ran) == [*numbers]


def run_and_note(number: int, notes: str, seconds: float = 0.05) -> int:
    """Take some time, note that the task has run, and return its number."""
    time.sleep(seconds)
    with open(notes, "a") as file:  # noqa: PTH123 - appends
        file.write(f"{number}\n")
    return number
