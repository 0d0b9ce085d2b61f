"""What the commands return to the shell."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What the commands return to the shell; scripts of users depend on the numbers."""

    DONE = 0
    UNEXPECTED = 1
    BAD_INPUT = 2
    LOCKED = 3
    BLOCKS_FAILED = 4
    DAMAGED = 5
    INTERRUPTED = 130
