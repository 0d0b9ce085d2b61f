"""Choose n and γ where the options leave them open: as many shares as the workers can use.

The rule, for both of them:

==============  ===  ===  ==========================================
workers         n    γ    workers that may be lost
==============  ===  ===  ==========================================
1               1    0    none: nothing is coded
2 or 3          2–3  1    1
4 or 5          4–5  2    2
6 or more       6    2    2
==============  ===  ===  ==========================================

If n is given, a worker may hold several shares, and γ is what the workers of the last column hold,
at most half of n. If γ is given, n is 3 γ or 6, whichever is more, as far as there are workers;
with no more workers than γ it is 2 γ.

A code that does not exist for these numbers is given the nearest that it does exist for: first with
fewer shares, then with a smaller γ. Only ``replication`` needs that: n is a multiple of γ + 1.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from fcdcc.coding.errors import CodeError
from fcdcc.coding.partitions import code_partitions

from ..anyk.state_machine.seats import shares_held
from ..errors import OptionError
from ..options import AUTO, MAX_SHARES, PlanOptions

USUAL_SHARES = 6
"""n on clusters of at least as many workers."""

SHARES_PER_LOSS = 3
"""n of a given γ is this many times γ: the parity is at most a third of the shares."""

MIN_WORKERS_FOR_TWO_LOSSES = 4
"""Workers from which on two of them may be lost; with fewer, one."""

Options = TypeVar("Options", bound=PlanOptions)


def with_share_counts(options: Options, workers: int) -> Options:
    """Return the options with n and γ as numbers.

    Parameters
    ----------
    options
        Numbers that they have are kept.
    workers
        How many workers there are, at least one.

    Raises
    ------
    OptionError
        If the code does not exist for the number that is given, or the options need a share that
        may be lost and there is none.
    """
    n, tolerate = options.n, options.tolerate
    if n == AUTO and tolerate == AUTO:
        wanted = min(workers, USUAL_SHARES)
        n, tolerate = _nearest(options, wanted, _tolerance(options, wanted, workers))
    elif n == AUTO:
        n = _shares_of(options, int(tolerate), workers)
    elif tolerate == AUTO:
        tolerate = _tolerance_of(options, n, workers)
    if options.compares_shares and tolerate == 0:
        raise OptionError(
            f"--verify {options.verify} compares more shares than are needed, and with {workers} "
            f"worker{'s' * (workers > 1)} none may be lost: start more workers, or give --n and "
            "--tolerate"
        )
    return options.model_copy(update={"n": n, "tolerate": tolerate})


def share_count_note(options: PlanOptions, workers: int) -> str | None:
    """Return a warning if the choice is that no share may be lost; else None."""
    if options.tolerate != AUTO or options.code == "uncoded" or workers > 1:
        return None
    return "there is one worker, which may not be lost: nothing is coded (γ = 0)"


def _tolerance(options: PlanOptions, n: int, workers: int) -> int:
    """Return γ for n shares, whether or not the code exists for it."""
    if options.code == "uncoded" or workers == 1:
        return 0
    lost = 2 if workers >= MIN_WORKERS_FOR_TWO_LOSSES else 1
    return min(shares_held(lost, workers, n), n // 2)


def _nearest(options: PlanOptions, n: int, tolerate: int) -> tuple[int, int]:
    """Return the nearest numbers that the code exists for, at most these."""
    for losses in range(tolerate, 0, -1):
        for shares in range(n, losses, -1):
            if _problem(options, shares, losses) is None:
                return shares, losses
    return n, 0


def _shares_of(options: PlanOptions, tolerate: int, workers: int) -> int:
    """Return n for a given γ."""
    wanted = min(MAX_SHARES, max(USUAL_SHARES, SHARES_PER_LOSS * tolerate))
    n = min(workers, wanted) if workers > tolerate else min(MAX_SHARES, 2 * tolerate)
    possible = (*range(n, tolerate, -1), *range(n + 1, n + tolerate + 2))
    found = _first_allowed(options, ((shares, tolerate) for shares in possible))
    if found is None:
        raise OptionError(
            f"--tolerate {tolerate} with --code {options.code} and --n auto: no n up to "
            f"{possible[-1]} goes with it; give --n, or take another code"
        )
    return found[0]


def _tolerance_of(options: PlanOptions, n: int, workers: int) -> int:
    """Return γ for a given n."""
    wanted = _tolerance(options, n, workers)
    found = _first_allowed(options, ((n, losses) for losses in range(wanted, 0, -1)))
    if found is not None:
        return found[1]
    if wanted:
        raise OptionError(
            f"--n {n} with --tolerate auto: {_problem(options, n, wanted)}; give another --n, or "
            "--tolerate"
        )
    return 0


def _first_allowed(
    options: PlanOptions, numbers: Iterable[tuple[int, int]]
) -> tuple[int, int] | None:
    return next((pair for pair in numbers if _problem(options, *pair) is None), None)


def _problem(options: PlanOptions, n: int, tolerate: int) -> CodeError | None:
    """Return why the code does not exist for some n and γ; None if it does."""
    try:
        code_partitions(options.code, n, n - tolerate)
    except CodeError as error:
        return error
    return None
