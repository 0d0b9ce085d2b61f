"""The report as JSON, for scripts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..record.journal import finite
from .recorded_run import OutputReport, RecordedRun

WORKER_FIELDS = (
    "address", "name", "pid", "host", "done", "erased", "lost", "late", "worst", "pace", "gone",
    "silent",
)  # fmt: skip


def report_json(report: OutputReport) -> str:
    """Return an output and its runs, the latest first, as one JSON object.

    Numbers are in seconds and bytes. A run that is not over, or was cut off, has an empty
    ``summary``; otherwise that is what ``fcdcc run --json`` wrote.
    """
    found = {
        "output": report.output,
        "created": report.created,
        **report.status.to_dict(),
        "runs": [_run(run) for run in report.runs],
    }
    return json.dumps(finite(found), indent=2)


def _run(run: RecordedRun) -> dict[str, Any]:
    summary = run.members["summary"]
    return {
        "run": run.run,
        "began": run.begin,
        "state": run.state,
        "error": run.error,
        "blocks_done": run.number("blocks_done"),
        "images_done": run.number("images_done"),
        "seconds": run.seconds,
        "images_per_second": run.images_per_second,
        "waiting_saved": run.saved,
        "worker_loss": None if run.worker_loss is None else dict(run.worker_loss),
        "about": dict(run.about),
        "summary": dict(summary) if isinstance(summary, Mapping) else {},
        "workers": [{name: row.get(name) for name in WORKER_FIELDS} for row in run.workers],
        "layers": [dict(row) for row in run.layers],
        "failures": [list(failure) for failure in run.members["failures"]],
    }
