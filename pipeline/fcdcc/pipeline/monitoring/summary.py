"""The summary of a run: what it did, as a value, and in sentences for a terminal and for Python."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from html import escape
from typing import Any, Literal

from fcdcc.storage.journals import JOURNALS

from ..formatting import MIN_MENTIONED_WORK, count, counted, duration, percent, printable
from .late_workers import LateWorker, bypassed_workers, started_elsewhere
from .record.loss_cost import loss_sentence

Reason = Literal["image_ids", "images", "absent_chunks", "shorter"]

REASONS: dict[Reason, str] = {
    "image_ids": "for other image ids",
    "images": "for changed images",
    "absent_chunks": "for chunks that were missing before",
    "shorter": "became shorter",
}
"""Why blocks that were done are made again, in a few words."""

MAX_NAMED_BLOCKS = 20
"""Most failed blocks that a line names."""

MAX_NAMED_FILES = 6
"""Most repaired files that a line names."""

MAX_NAMED_WORKERS = 3
"""Most workers that a line names."""

MIN_SAVED_SECONDS = 0.05
"""Least seconds of saved waiting that are mentioned."""


@dataclass(frozen=True)
class CorruptShare:
    """A wrong share, and the address of the worker that computed it."""

    block: int
    layer: int
    position: int
    worker: str


@dataclass(frozen=True)
class BlockFailure:
    """A block that failed, and why, in a line."""

    block: int
    reason: str


@dataclass(frozen=True)
class Summary:
    """The result of one run.

    Parameters
    ----------
    status
        ``complete`` if every block has a prediction, else ``incomplete``.
    blocks_total, blocks_done, blocks_skipped, blocks_failed
        Blocks of the job; computed by this run; done before it; failed in it.
    images_done, seconds, images_per_second
        Of this run; ``seconds`` are those of its work and of sending the model to the workers, and
        the rate is by them. ``phases`` has the seconds of its work alone.
    groups
        Coded groups (one layer of one block) completed.
    erasures
        Shares started or assigned and then abandoned without a result.
    decodes
        Groups in which something was solved for.
    parity_started
        Parity shares that were started.
    extra_work
        (multiply-adds executed − uncoded) / uncoded, abandoned shares included.
    max_condition_number
        The largest of all decodes; None if nothing was decoded.
    corrupt_shares
        Wrong shares that were found.
    workers_lost
        Addresses of workers that died or were removed.
    workers_silent
        Addresses of workers of the cluster that did not answer at the end of the run and were not
        removed, also of those that never had a share.
    bytes_sent
        Between workers.
    fingerprint, version
        Of the run, and of this package.
    failures
        The first hundred blocks that failed in this run, each with its reason.
    peak_memory
        The most bytes of a worker's process; None if the run was shorter than a heartbeat, with
        which workers report it.
    planned
        What the plan's cost model expected of this run, for ``seconds``, ``bytes_sent``,
        ``extra_work`` and ``peak_memory``, on its workers with nothing lost; ``plain_seconds`` for
        the same images with plain data-parallel inference, and ``parity_memory``, the bytes that a
        worker needs in addition to ``peak_memory`` where it computes parity. None if there was
        nothing to do.
    blocks_provisional
        Blocks that are done although chunks of their images are not stored; they are made again
        once one of these is there.
    chunks_absent
        These chunks, and those of blocks that failed for want of them.
    sample
        What a few images became before the network: types, and the smallest, largest and mean
        value per channel; None if nothing was computed or they could not be read.
    blocks_redone
        Blocks that were done before the run, and that it had to make again because they were made
        from other images than there are now.
    redone
        How many of them for which reason: ``image_ids`` (their rows have other ids), ``images``
        (their images were changed or written anew), ``absent_chunks`` (chunks of their images were
        not stored before), ``shorter`` (the last block, which has fewer images now).
    images_removed
        Images that the input no longer has at its end, and whose predictions were removed.
    run
        The run's id, as task keys and ``fcdcc report`` have it; None if nothing had to be computed.
    output
        Where the predictions are, without credentials.
    prediction
        What the network predicts and how its classes are decided, in words.
    dashboard
        Where the run could be watched; None if its scheduler shows no pages.
    phases
        Seconds of ``start`` (model, images, cluster), ``plan``, ``work`` (from the first block to
        the last) and ``end`` (recording what happened), until the summary was made.
    insured
        What could be lost: ``n`` and ``delta`` (any ``delta`` of ``n`` shares suffice),
        ``redundancy``, how many ``convolutions`` the network has, how many of them are
        ``protected``, and at how many ``points`` shares are compared or made up for; None if
        nothing had to be computed.
    blocks_repeated
        Blocks of this run that were computed more than once: their workers died, or their shares
        contradicted each other.
    blocks_repaired
        Blocks of this run that ``fcdcc verify`` had found damaged.
    blocks_retried
        Blocks of this run that had failed in an earlier one.
    blocks_not_full
        Blocks of this run that an earlier one made with fewer images, because there were no more:
        the last block is made again when images are added, if it was not full.
    images_again
        Those of ``images_done`` that had a prediction before the run: images of blocks that are
        made again.
    worker_loss
        What workers that were lost or did not answer for a while cost in seconds, an estimate:
        ``cost_seconds``, and what it was computed from (:class:`.record.loss_cost.LossCost`); None
        if there were none.
    files_repaired
        Files of the output beside its predictions, such as chunks of ``image_id``, that were
        damaged or missing when the run began and have been made again. Damaged journals of earlier
        runs are among them, which are removed.
    shares_lost
        Shares that had to be computed again, because their worker left or did not answer, or
        because their result was gone.
    tasks_doubled
        Late tasks that were started a second time, on another worker.
    late_workers
        The workers that were late with these tasks, those with the most first, and those that did
        not answer for a while (:class:`.late_workers.LateWorker`).
    tasks_waiting
        Late tasks that may have been late because another worker did not answer.
    waiting_saved
        Seconds of the run in which some group would have waited for a share that was given up, at
        least.
    tiles_done
        Tiles that this run computed; None for a job without tiles. Of a job with tiles, blocks are
        blocks of tiles.
    bands_total, bands_done, bands_skipped, bands_failed
        Of a job with tiles: the bands of its images, which are put together from tiles; made by
        this run; made before it; failed in it. ``redone``, and the blocks that are provisional,
        redone, repaired or retried, are bands then.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> from fcdcc.pipeline import JobConfig, run
    >>> job = JobConfig(
    ...     model="model.pt2", input="images.zarr", output=mkdtemp() + "/out.zarr",
    ...     processes=False, workers=2, dashboard_address=":0",
    ... )
    >>> summary = run(job)
    >>> summary
    <Summary complete: ..., 20 images in ...>
    >>> sorted(summary.phases)
    ['end', 'plan', 'start', 'work']
    """

    status: Literal["complete", "incomplete"]
    blocks_total: int
    blocks_done: int
    blocks_skipped: int
    blocks_failed: int
    images_done: int
    seconds: float
    images_per_second: float
    groups: int
    erasures: int
    decodes: int
    parity_started: int
    extra_work: float
    max_condition_number: float | None
    corrupt_shares: tuple[CorruptShare, ...]
    workers_lost: tuple[str, ...]
    bytes_sent: int
    fingerprint: str
    version: str
    failures: tuple[BlockFailure, ...] = ()
    peak_memory: int | None = None
    planned: dict[str, float] | None = None
    blocks_provisional: int = 0
    chunks_absent: int = 0
    sample: dict[str, Any] | None = None
    blocks_redone: int = 0
    redone: dict[str, int] = field(default_factory=dict)
    images_removed: int = 0
    run: str | None = None
    output: str = ""
    prediction: str = ""
    dashboard: str | None = None
    phases: dict[str, float] = field(default_factory=dict)
    insured: dict[str, Any] | None = None
    blocks_repeated: int = 0
    shares_lost: int = 0
    tasks_doubled: int = 0
    waiting_saved: float = 0.0
    tiles_done: int | None = None
    bands_total: int = 0
    bands_done: int = 0
    bands_skipped: int = 0
    bands_failed: int = 0
    blocks_repaired: int = 0
    blocks_retried: int = 0
    blocks_not_full: int = 0
    images_again: int = 0
    files_repaired: tuple[str, ...] = ()
    worker_loss: dict[str, Any] | None = None
    late_workers: tuple[LateWorker, ...] = ()
    tasks_waiting: int = 0
    workers_silent: tuple[str, ...] = ()

    def __repr__(self) -> str:
        there = self.blocks_done + self.blocks_skipped
        blocks = f"{there:,} of {counted(self.blocks_total, 'block')}"
        failed = f", {self.blocks_failed:,} failed" if self.blocks_failed else ""
        images = counted(self.images_done, "image")
        seconds = duration(self.phases.get("work") or self.seconds)
        return f"<Summary {self.status}: {blocks}{failed}, {images} in {seconds}>"

    def __str__(self) -> str:
        return "\n".join(summary_lines(self))

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the lines that the command prints at its end."""
        return "<br>".join(escape(line) for line in str(self).splitlines())

    def to_dict(self) -> dict[str, Any]:
        """Return the summary as plain values."""
        return asdict(self)

    def to_json(self) -> str:
        """Return the summary as one JSON object."""
        return json.dumps(self.to_dict(), indent=2)


def summary_lines(summary: Summary) -> Iterator[str]:
    """Yield lines on what a run did, what its redundancy did, where the output is, what is next."""
    text = "" if summary.sample is None else str(summary.sample["text"])
    yield from input_lines(text, summary.prediction)
    yield from result_lines(summary)


def input_lines(sample: str, prediction: str) -> Iterator[str]:
    """Yield lines on what the images become and what is predicted, as far as these are known."""
    if sample:
        yield f"images: {sample}"
    if prediction:
        yield f"prediction: {printable(prediction)}"


def result_lines(summary: Summary) -> Iterator[str]:
    """Yield the lines of a summary without those that a run says before its work begins."""
    if summary.blocks_provisional:
        yield _absence_line(summary)
    yield _failure_line(summary) if summary.blocks_failed else _success_line(summary)
    if summary.bands_failed:
        bands = counted(summary.bands_total, "band of the images", "bands of the images")
        yield (
            f"{count(summary.bands_failed)} of {bands} could not be put together from tiles: run "
            "the same command again"
        )
    if summary.files_repaired:
        yield files_repaired_line(summary.files_repaired)
    if summary.phases:
        yield _time_line(summary.phases)
    if summary.insured is not None:
        yield redundancy_line(summary, summary.insured)
    if summary.worker_loss is not None:
        yield loss_sentence(summary.worker_loss)
    place = printable(shlex.quote(summary.output))
    if summary.output and not _has_predictions(summary):
        yield f"next: fcdcc report {place} (what happened)"
    elif summary.output:
        reading = f"xarray.open_zarr({json.dumps(summary.output, ensure_ascii=False)})"
        yield printable(f"the predictions are in {summary.output}, and {reading} reads them")
        yield f"next: fcdcc report {place} (what happened), fcdcc verify {place} (is it whole)"


def _has_predictions(summary: Summary) -> bool:
    """Return whether at least one block, or band of images with tiles, is in the output."""
    if summary.tiles_done is None:
        return summary.blocks_done + summary.blocks_skipped > 0
    return summary.bands_done + summary.bands_skipped > 0


def _success_line(summary: Summary) -> str:
    """Return a line that says what a run did; of a job with tiles, its bands."""
    is_tiled = summary.tiles_done is not None
    total, skipped, made = (
        (summary.bands_total, summary.bands_skipped, summary.bands_done)
        if is_tiled
        else (summary.blocks_total, summary.blocks_skipped, summary.blocks_done)
    )
    parts = []
    if skipped:
        parts.append(f"{count(skipped)} done before")
    again = summary.blocks_redone + summary.blocks_repaired + summary.blocks_not_full
    if again:
        parts.append(f"{count(again)} made again ({', '.join(_reasons(summary, again))})")
    if summary.blocks_retried:
        parts.append(f"{count(summary.blocks_retried)} that had failed")
    new = made - again - summary.blocks_retried
    if parts and new > 0:
        parts.append(f"{count(new)} new")
    which = f", of them {', '.join(parts)}" if parts else ""
    work = summary.phases.get("work", 0.0)
    taken = work or summary.seconds
    seconds = f"{taken:.1f} s" if taken < 1 else duration(taken)
    of_work = " of work" if work else ""
    images = counted(summary.images_done, "image")
    if 0 < summary.images_again < summary.images_done:
        fresh = summary.images_done - summary.images_again
        images += f" ({count(fresh)} new, {count(summary.images_again)} made again)"
    images += f" in {seconds}{of_work}"
    if summary.tiles_done is not None:
        images = f"{counted(summary.tiles_done, 'tile')} of {images}"
    computed = summary.blocks_done or summary.bands_done
    done = images if computed else "nothing was left to compute"
    names = ("band of the images", "bands of the images") if is_tiled else ("block", "blocks")
    blocks = counted(total, *names)
    return f"{summary.status}: {blocks}{which}; {done}"


def _reasons(summary: Summary, again: int) -> Iterator[str]:
    """Yield why blocks are made again that were done, each with the number of blocks."""
    for reason, text in REASONS.items():
        if reason in summary.redone:
            yield f"{summary.redone[reason]:,} {text}"
    if summary.blocks_repaired:
        yield f"{count(summary.blocks_repaired)} damaged"
    if not_full := summary.blocks_not_full:
        alone = "it was not full" if not_full == 1 else "they were not full"
        yield alone if not_full == again else f"{count(not_full)} not full before"


def files_repaired_line(names: Sequence[str]) -> str:
    """Return a line on files beside the predictions that were damaged.

    >>> files_repaired_line(["image_id/c.0"])
    '1 file beside the predictions was made again (damaged or missing): image_id/c.0'
    """
    journals = [name for name in names if name.startswith(f"{JOURNALS}/")]
    others = [name for name in names if name not in journals]
    parts = []
    if others:
        were = "beside the predictions was", "beside the predictions were"
        files = counted(len(others), f"file {were[0]}", f"files {were[1]}")
        parts.append(f"{files} made again (damaged or missing): {_files_named(others)}")
    if journals:
        files = counted(len(journals), "damaged journal was", "damaged journals were")
        parts.append(f"{files} removed: {_files_named(journals)}")
    return "; ".join(parts)


def _files_named(names: Sequence[str]) -> str:
    named = ", ".join(printable(name) for name in names[:MAX_NAMED_FILES])
    more = f" and {len(names) - MAX_NAMED_FILES:,} more" if len(names) > MAX_NAMED_FILES else ""
    return f"{named}{more}"


def _absence_line(summary: Summary) -> str:
    """Return a line about chunks of the images that are not stored."""
    chunks = counted(
        summary.chunks_absent,
        "chunk of the images is not stored and was",
        "chunks of the images are not stored and were",
    )
    blocks = counted(summary.blocks_provisional, "block" if summary.tiles_done is None else "band")
    return (
        f"{chunks} read as the fill value by {blocks}; a run that finds what is missing makes "
        + ("it again" if summary.blocks_provisional == 1 else "them again")
    )


def _failure_line(summary: Summary) -> str:
    """Return a line that names the blocks that failed."""
    most = min(MAX_NAMED_BLOCKS, summary.blocks_failed)  # bands come after all blocks
    named = [str(failure.block) for failure in summary.failures[:most]]
    more = ", …" if summary.blocks_failed > MAX_NAMED_BLOCKS else ""
    return (
        f"{count(summary.blocks_failed)} of {counted(summary.blocks_total, 'block')} failed "
        f"({', '.join(named)}{more}): run the same command again to retry "
        + ("it" if summary.blocks_failed == 1 else "them")
    )


def _time_line(phases: Mapping[str, float]) -> str:
    """Return a line on how long a run and its phases took."""
    parts = ", ".join(f"{phase} {duration(seconds)}" for phase, seconds in phases.items())
    return f"time: {duration(sum(phases.values()))} ({parts})"


def redundancy_line(summary: Summary, insured: Mapping[str, Any]) -> str:
    """Return a line on what could be lost, what happened, and what redundancy saved."""
    return f"redundancy: {protection(insured)}; {', '.join(_events(summary))}"


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


def silent_workers(number: int, addresses: Sequence[str] = ()) -> str:
    """Return how many workers did not answer at the end of a run, and were not removed.

    >>> silent_workers(1, ["tcp://10.0.0.7:4411"])
    '1 worker did not answer at the end (tcp://10.0.0.7:4411)'
    """
    named = ", ".join(addresses[:MAX_NAMED_WORKERS])
    more = len(addresses) - MAX_NAMED_WORKERS
    names = f" ({named}{f' and {more:,} more' if more > 0 else ''})" if named else ""
    return f"{counted(number, 'worker')} did not answer at the end{names}"


def _named_workers(wrong: Iterable[CorruptShare]) -> str:
    """Return the workers that computed wrong shares, the worst first, as a list in words."""
    found = Counter(share.worker or "a worker without a name" for share in wrong).most_common()
    named = [f"{worker} ({count(number)})" for worker, number in found[:MAX_NAMED_WORKERS]]
    more = len(found) - len(named)
    return " and ".join(named) + (f" and {counted(more, 'other')}" if more else "")


def parity_in_words(started: int, is_needed: bool) -> str:
    """Return how many parity shares were started, and whether any was needed.

    >>> parity_in_words(2, is_needed=False)
    '2 parity shares were started and not needed in the end'
    """
    said = counted(started, "parity share was", "parity shares were") + " started"
    return said if is_needed else f"{said} and not needed in the end"


def _events(summary: Summary) -> Iterator[str]:
    """Yield what happened to workers, shares and blocks, and what that cost and saved."""
    lost = len(summary.workers_lost)
    silent = int((summary.worker_loss or {}).get("silent", 0))
    if silent:
        yield silent_workers(silent, summary.workers_silent)
    if lost or not silent:
        were = counted(lost, "worker was lost", "workers were lost")
        yield were if lost else "no worker was lost"
    if bypassed := bypassed_workers(summary.late_workers):
        yield printable(bypassed)
    if summary.decodes:
        of = counted(summary.groups, "result")
        was = "was" if summary.decodes == 1 else "were"
        yield f"{count(summary.decodes)} of {of} {was} made up from other shares"
    elif summary.groups:
        yield "no result had to be made up from other shares"
    if summary.parity_started > summary.decodes:
        is_eager = (summary.insured or {}).get("redundancy") == "eager"
        yield parity_in_words(summary.parity_started, bool(summary.decodes) or is_eager)
    if summary.shares_lost:
        yield counted(summary.shares_lost, "share was", "shares were") + " computed again"
    if summary.tasks_doubled:
        late, waiting = summary.late_workers, summary.tasks_waiting
        yield printable(started_elsewhere(summary.tasks_doubled, late, waiting))
    if summary.blocks_repeated:
        yield counted(summary.blocks_repeated, "block was", "blocks were") + " done twice"
    else:
        yield "no block was done twice"
    if summary.corrupt_shares:
        wrong = counted(len(summary.corrupt_shares), "wrong share was", "wrong shares were")
        yield f"{wrong} found, from {_named_workers(summary.corrupt_shares)}"
    if summary.waiting_saved >= MIN_SAVED_SECONDS:
        yield f"at least {duration(summary.waiting_saved)} of waiting saved"
    if summary.extra_work >= MIN_MENTIONED_WORK:
        yield f"{percent(summary.extra_work)} more arithmetic than the network needs"
