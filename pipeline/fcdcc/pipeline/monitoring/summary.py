"""The summary of a run: what it did, as a value."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from html import escape
from typing import Any, Literal

from ..formatting import counted, duration

Reason = Literal["image_ids", "images", "absent_chunks"]

REASONS: dict[Reason, str] = {
    "image_ids": "other image ids",
    "images": "changed images",
    "absent_chunks": "chunks that were missing before",
}
"""Why blocks that were done are made again, in a few words."""


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
        Of this run.
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
        ``extra_work`` and ``peak_memory``, on its workers with nothing lost; None if there was
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
        not stored before).
    images_removed
        Images that the input no longer has at its end, and whose predictions were removed.
    run
        The run's id, as task keys and ``fcdcc report`` have it; None if nothing had to be computed.
    output
        Where the predictions are, without credentials.
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
    shares_lost
        Shares that were computed again because their worker was lost.
    waiting_saved
        Seconds of the run in which some group would have waited for a share that was given up, at
        least.

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
    dashboard: str | None = None
    phases: dict[str, float] = field(default_factory=dict)
    insured: dict[str, Any] | None = None
    blocks_repeated: int = 0
    shares_lost: int = 0
    waiting_saved: float = 0.0

    def __repr__(self) -> str:
        there = self.blocks_done + self.blocks_skipped
        blocks = f"{there:,} of {counted(self.blocks_total, 'block')}"
        failed = f", {self.blocks_failed:,} failed" if self.blocks_failed else ""
        images, seconds = counted(self.images_done, "image"), duration(self.seconds)
        return f"<Summary {self.status}: {blocks}{failed}, {images} in {seconds}>"

    def __str__(self) -> str:
        from .summary_text import summary_lines  # it imports this module

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
