"""What a run's numbers say, in sentences."""

from __future__ import annotations

from collections.abc import Iterator

from ...formatting import duration, percent
from ..stragglers import WorkerView, verdict
from .recorded_run import RecordedRun

_STATES = {
    "complete": "complete",
    "incomplete": "some blocks failed",
    "interrupted": "interrupted",
    "failed": "with an error",
    "running": "is running",
    "cut off": "cut off",
}


def state_words(state: str) -> str:
    """Return how a run ended, in a word or two.

    >>> state_words("incomplete")
    'some blocks failed'
    """
    return _STATES.get(state, state)


def conclusion(run: RecordedRun) -> list[str]:
    """Return what a colleague should know of a run: a few sentences."""
    return list(_sentences(run))


def _sentences(run: RecordedRun) -> Iterator[str]:
    images = run.number("images_done") or 0
    yield (
        f"{images:.0f} images in {duration(run.seconds)}, {run.images_per_second:.1f} a second, "
        f"with {run.about['workers']} workers."
    )
    if run.members["error"]:
        yield f"It ended with an error: {run.members['error']}."
    if run.state in ("interrupted", "cut off"):
        yield f"It was {run.state}; the same command continues it."
    erasures, decodes = run.number("erasures") or 0, run.number("decodes") or 0
    groups = run.number("groups") or 0
    if groups:
        said = (
            f"{erasures:.0f} shares were not waited for; in {decodes:.0f} of {groups:.0f} groups "
            "something was solved for"
        )
        tail = run.tail(0.99)
        if tail is not None and tail[1] > 1.05 * tail[0]:
            said += (
                f". 99 of 100 groups were there after {duration(tail[0])}; with the slowest share "
                f"it would have been {duration(tail[1])} at least"
            )
        yield said + "."
        extra = run.number("extra_work")
        saved = f"it saved {duration(run.saved)} of waiting, at least" if run.saved >= 0.05 else (
            "there was hardly anything to wait for"
        )  # fmt: skip
        yield f"The insurance cost {percent(extra)} more arithmetic; {saved}."
        yield verdict([_view(row) for row in run.workers])


def _view(row: dict[str, object]) -> WorkerView:
    names = ("address", "done", "erased", "lost", "late", "worst", "pace")
    view: dict[str, object] = {name: row[name] for name in names}
    return WorkerView(**view, gone=str(row["gone"] or ""), gone_for=-1.0)  # type: ignore[arg-type] # from JSON
