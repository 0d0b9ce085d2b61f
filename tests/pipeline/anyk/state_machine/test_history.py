"""What is kept of runs."""

from __future__ import annotations

from fcdcc.pipeline.anyk.state_machine import events
from support.anyk_model import ModelDask


def test_the_history_of_many_runs_is_bounded_and_the_totals_stay() -> None:
    dask = ModelDask(["a"])
    history = dask.machine.history
    for number in range(40):
        history.run(f"run{number}").counters.erasures += 1
    assert len(history.runs) == 16
    assert history.totals().erasures == 40
    dask.report(events.RunDropped(0.0, "run39"))
    assert "run39" not in history.runs
    assert history.totals().erasures == 40
