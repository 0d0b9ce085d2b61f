"""Limits of one import: what a small file must not be able to exceed."""

from __future__ import annotations

import time

from ..errors import ModelError

MAX_STEPS = 100_000
"""Steps of a model, those included that replace changes of memory."""

MAX_DEPTH = 16
"""Graphs inside graphs."""

MAX_CONSTANT_BYTES = 1 << 30
"""Bytes of all constants that an import computes."""

MAX_CONSTANT_WORK = 1 << 34
"""Multiply-adds, comparisons and elements written for these constants: seconds on one core."""

MAX_SECONDS = 300.0
"""CPU seconds of one import."""


class ImportBudget:
    """What is left for an import; every method raises ModelError once there is nothing left."""

    def __init__(self) -> None:
        self._steps = MAX_STEPS
        self._bytes = MAX_CONSTANT_BYTES
        self._work = MAX_CONSTANT_WORK
        self._until = time.process_time() + MAX_SECONDS

    def take_steps(self, count: int = 1) -> None:
        """Count steps, and the time."""
        self._steps -= count
        if self._steps < 0:
            raise ModelError(f"the model has more than {MAX_STEPS} steps; expected fewer")
        if self._steps % 256 == 0 and time.process_time() > self._until:
            raise ModelError(f"the import takes more than {MAX_SECONDS:.0f} s; expected less")

    def enter(self, depth: int) -> None:
        """Check how deep graphs are nested."""
        if depth > MAX_DEPTH:
            raise ModelError(f"the model has graphs nested {depth} deep; expected {MAX_DEPTH}")

    def take_constant(self, name: str, size: int, work: int) -> None:
        """Count the bytes of a constant and the work of computing it."""
        self._bytes -= size
        self._work -= work
        if self._bytes < 0:
            raise ModelError(
                f"the constant {name!r:.80} takes {size} bytes, and with those before it more than "
                f"{MAX_CONSTANT_BYTES}; expected a model that stores its constants"
            )
        if self._work < 0:
            raise ModelError(
                f"the constant {name!r:.80} takes {work} multiply-adds, and with those before it "
                f"more than {MAX_CONSTANT_WORK}; expected a model that stores its constants"
            )
