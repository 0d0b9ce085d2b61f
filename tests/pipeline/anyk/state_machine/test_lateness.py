"""Which workers are late."""

from __future__ import annotations

from fcdcc.pipeline.anyk.state_machine import events
from support.anyk_model import EXACT, all_late, six_workers, started_group, tick, with_one_missing


def test_what_is_late_is_learned_from_the_groups_before() -> None:
    dask = six_workers(EXACT)
    for block in range(3):
        shares = started_group(dask, block, at=10.0 * block)
        dask.now += 3.0
        for key in shares.values():
            dask.finish(key)
        dask.settle()
    shares = started_group(dask, 3, at=30.0)
    dask.now = 30.1
    dask.finish(shares[0])
    dask.settle()
    # Only one share of this group is done, but it is known that shares of this layer take 3 s.
    late = {dask.shares[shares[1]].worker: 31.0}
    assert tick(dask, 35.9, late) == []
    started = tick(dask, 36.1, late)
    # One parity share for each of the two late shares.
    assert [type(item) for item in started] == [events.StartShare, events.StartShare]


def test_if_more_than_half_of_the_workers_are_late_none_is() -> None:
    dask, shares = all_late()
    assert tick(dask, 99.0) == []
    dask.now = 99.0
    dask.finish(shares[0])
    dask.settle()
    assert [type(item) for item in tick(dask, 99.1)] == [events.StartShare, events.StartShare]


def test_no_worker_is_late_when_the_scheduler_was_blocked() -> None:
    dask, _ = with_one_missing()
    observed = tuple(events.WorkerObservation(name, 1.0, 0.0, 0, True) for name in dask.workers)
    dask.report(events.Tick(1.0, 0.25, 0.5, observed))
    observed = tuple(events.WorkerObservation(name, 9.0, 0.0, 0, True) for name in dask.workers)
    assert dask.report(events.Tick(9.0, 0.25, 0.5, observed)) == ()
    assert dask.report(events.Tick(9.25, 0.25, 0.5, observed)) != ()
