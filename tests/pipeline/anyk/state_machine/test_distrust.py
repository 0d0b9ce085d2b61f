"""Who is given no more work: workers that give wrong shares again and again."""

from __future__ import annotations

from fcdcc.pipeline.anyk.state_machine import events
from fcdcc.pipeline.anyk.state_machine.state import AnyKState
from fcdcc.pipeline.anyk.worker import parse_notice


def machine(*workers: str) -> AnyKState:
    state = AnyKState()
    for worker in workers:
        state.handle(events.WorkerJoined(0.0, worker, worker, 1))
    return state


def wrong(state: AnyKState, worker: str, block: int, *layers: int) -> list[events.Instruction]:
    for layer in layers or (0,):
        message = {"event": "corrupt-share", "run": "r", "layer": layer, "block": block}
        event = parse_notice(1.0, {**message, "shares": [[2, worker]]})
        assert event is not None
        state.handle(event)
    return [*state.handle(events.Settle(1.0))]


def test_wrong_shares_in_three_blocks_are_too_many() -> None:
    state = machine("a", "b")
    assert wrong(state, "a", 0, 0, 1, 2) == []  # one incident, in three layers
    assert wrong(state, "a", 1) == []
    assert wrong(state, "b", 1) == []
    assert wrong(state, "a", 2) == [events.StopUsingWorker("a", 3)]
    assert state.history.run("r").counters.corrupt_shares == 6
    assert state.history.run("r").corrupt[-1] == (0, 2, 2, "a")
    assert state.workers.by_address["a"].avoid_rank
    assert not state.workers.by_address["b"].avoid_rank


def test_one_that_dask_would_use_again_is_shut_out_again() -> None:
    state = machine("a", "b")
    for block in range(3):
        wrong(state, "a", block)
    state.handle(events.WorkerStatus(2.0, "a", running=False))
    assert [*state.handle(events.Tick(3.0, 0.25, 0.5, ()))] == []
    state.handle(events.WorkerStatus(4.0, "a", running=True))
    assert events.StopUsingWorker("a", 3) in state.handle(events.Tick(5.0, 0.25, 0.5, ()))


def test_the_last_worker_is_not_shut_out() -> None:
    state = machine("a", "b")
    for block in range(5):
        wrong(state, "a", block)
    state.handle(events.WorkerStatus(2.0, "a", running=False))
    for block in range(5):
        assert wrong(state, "b", block) == []


def test_a_worker_that_comes_back_begins_anew() -> None:
    state = machine("a", "b")
    for block in range(2):
        wrong(state, "a", block)
    state.handle(events.WorkerLeft(2.0, "a"))
    state.handle(events.WorkerJoined(3.0, "a", "a", 1))
    assert wrong(state, "a", 2) == []


def test_what_is_no_notice_is_none() -> None:
    good = {"event": "mismatch", "run": "r", "layer": 0, "block": 0, "shares": []}
    assert parse_notice(0.0, good) is not None
    for name in good:
        assert parse_notice(0.0, {**good, name: None}) is None
        assert parse_notice(0.0, {other: good[other] for other in good if other != name}) is None


def test_two_results_that_fail_their_checksum_are_too_many_also_in_one_block() -> None:
    state = machine("a", "b")

    def failed(worker: str) -> list[events.Instruction]:
        message = {"event": "failed-check", "run": "r", "layer": 1, "block": 4}
        event = parse_notice(1.0, {**message, "shares": [[0, worker]]})
        assert event is not None
        state.handle(event)
        return [*state.handle(events.Settle(1.0))]

    assert failed("a") == failed("b") == []
    assert failed("a") == [events.StopUsingWorker("a", 2)]
    assert state.history.run("r").counters.corrupt_shares == 3
    assert state.distrust.wrong_shares == {"a": 2, "b": 1}
