"""The summary of a run in sentences: what a command prints at its end, and what Python shows."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from ..formatting import count, counted, duration, percent, printable
from .summary import REASONS, Summary

MAX_NAMED_BLOCKS = 20
"""Most failed blocks that a line names."""

MIN_SAVED_SECONDS = 0.05
"""Least seconds of saved waiting that are mentioned."""


def summary_lines(summary: Summary) -> Iterator[str]:
    """Yield lines on what a run did, what its insurance did, where the output is, what is next."""
    if summary.sample is not None:
        yield f"images: {summary.sample['text']}"
    if summary.blocks_provisional:
        yield _absence_line(summary)
    yield _failure_line(summary) if summary.blocks_failed else _success_line(summary)
    if summary.phases:
        yield _time_line(summary.phases)
    if summary.insured is not None:
        yield insurance_line(summary, summary.insured)
    if summary.output:
        yield f"the predictions are in {printable(summary.output)}"
        place = printable(shlex.quote(summary.output))
        yield f"next: fcdcc report {place} (what happened), fcdcc verify {place} (is it whole)"


def _success_line(summary: Summary) -> str:
    """Return a line that says what a run did."""
    before = f", {count(summary.blocks_skipped)} of them before" if summary.blocks_skipped else ""
    again = ""
    if summary.blocks_redone:
        reasons = (
            f"{summary.redone[r]} for {t}" for r, t in REASONS.items() if r in summary.redone
        )
        again = f", {count(summary.blocks_redone)} made again ({', '.join(reasons)})"
    images = f"{counted(summary.images_done, 'image')} in {duration(summary.seconds)}"
    done = images if summary.blocks_done else "nothing was left to compute"
    blocks = counted(summary.blocks_total, "block")
    return f"{summary.status}: {blocks}{before}{again}; {done}"


def _absence_line(summary: Summary) -> str:
    """Return a line about chunks of the images that are not stored."""
    chunks = counted(
        summary.chunks_absent,
        "chunk of the images is not stored and was",
        "chunks of the images are not stored and were",
    )
    blocks = counted(summary.blocks_provisional, "block")
    return (
        f"{chunks} read as the fill value by {blocks}; a run that finds what is missing makes "
        + ("it again" if summary.blocks_provisional == 1 else "them again")
    )


def _failure_line(summary: Summary) -> str:
    """Return a line that names the blocks that failed."""
    named = [str(failure.block) for failure in summary.failures[:MAX_NAMED_BLOCKS]]
    more = ", …" if summary.blocks_failed > MAX_NAMED_BLOCKS else ""
    return (
        f"{summary.blocks_failed} of {counted(summary.blocks_total, 'block')} failed "
        f"({', '.join(named)}{more}): run the same command again to retry "
        + ("it" if summary.blocks_failed == 1 else "them")
    )


def _time_line(phases: Mapping[str, float]) -> str:
    """Return a line on how long a run and its phases took."""
    parts = ", ".join(f"{phase} {duration(seconds)}" for phase, seconds in phases.items())
    return f"time: {duration(sum(phases.values()))} ({parts})"


def insurance_line(summary: Summary, insured: Mapping[str, Any]) -> str:
    """Return a line on what was insured, what happened, and what the insurance saved."""
    return f"insurance: {protection(insured)}; {', '.join(_events(summary))}"


def protection(insured: Mapping[str, Any]) -> str:
    """Return what is protected against lost shares, in words.

    >>> protection({"n": 6, "delta": 4, "convolutions": 20, "protected": 20, "points": 2})
    'any 4 of 6 shares suffice for all 20 convolutions'
    >>> protection({"n": 1, "delta": 1, "convolutions": 1, "protected": 0, "points": 0})
    'none, lost work is computed again'
    """
    total, protected = insured["convolutions"], insured["protected"]
    if not protected:
        return "none, lost work is computed again"
    if protected == total:
        what = "the convolution" if total == 1 else f"all {total} convolutions"
    else:
        what = f"{protected} of {total} convolutions"
    return f"any {insured['delta']} of {insured['n']} shares suffice for {what}"


def _events(summary: Summary) -> Iterator[str]:
    """Yield what happened to workers, shares and blocks, and what that cost and saved."""
    lost = len(summary.workers_lost)
    yield counted(lost, "worker was lost", "workers were lost") if lost else "no worker was lost"
    if summary.decodes:
        of = count(summary.groups)
        yield f"{count(summary.decodes)} of {of} results were made up from other shares"
    elif summary.groups:
        yield "no share had to be made up"
    if summary.shares_lost:
        yield counted(summary.shares_lost, "lost share was", "lost shares were") + " computed again"
    if summary.blocks_repeated:
        yield counted(summary.blocks_repeated, "block was", "blocks were") + " done twice"
    else:
        yield "no block was done twice"
    if summary.corrupt_shares:
        wrong = counted(len(summary.corrupt_shares), "wrong share was", "wrong shares were")
        yield f"{wrong} found"
    if summary.waiting_saved >= MIN_SAVED_SECONDS:
        yield f"at least {duration(summary.waiting_saved)} of waiting saved"
    yield f"{percent(summary.extra_work)} more arithmetic"
