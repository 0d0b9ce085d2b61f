"""A real run, recorded, is replayed by another state machine to the same instructions."""

from __future__ import annotations

from pathlib import Path

import pytest

from fcdcc.pipeline.anyk.state_machine import events
from fcdcc.pipeline.anyk.state_machine.invariants import check_state
from fcdcc.pipeline.anyk.state_machine.lateness import LateByHistory
from fcdcc.pipeline.anyk.state_machine.state import AnyKState
from fcdcc.pipeline.anyk.state_machine.workers import LearnedSilence
from support.anyk_cluster import Running
from support.anyk_graphs import gathered, in_parts, network


def test_a_recorded_run_is_replayed(
    running: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = AnyKState(LearnedSilence(), LateByHistory(), record=True)
    answers: list[events.Instruction] = []

    def handle(event: events.Event) -> tuple[events.Instruction, ...]:
        answer = AnyKState.handle(state, event)
        answers.extend(answer)
        return answer

    scheduler = running.scheduler
    state.handle = handle  # type: ignore[method-assign]  # to hear what is answered
    with monkeypatch.context() as patch:
        patch.setattr(running.plugin, "state", state)
        for address in scheduler.workers:
            running.plugin.add_worker(scheduler, address)
        gates = {position: str(tmp_path / f"{position}") for position in (1, 4)}
        graphs = [
            gathered(0, gates),
            in_parts(1, seconds=0.02),
            *(network(block, 3, "parts", lambda: False) for block in range(2, 6)),
        ]
        futures = [running.client.get(g.tasks, g.results, sync=False) for g in graphs]
        for parts in futures:
            for part in parts:
                part.result(timeout=120)
        del futures, parts, part
        running.wait_until_empty()
    assert state.events is not None
    again = AnyKState(LearnedSilence(), LateByHistory(), record=True)
    replayed = [answer for event in state.events for answer in again.handle(event)]
    assert replayed == answers
    assert any(isinstance(answer, events.DisconnectNode) for answer in answers)
    assert again.events == state.events
    assert again.history.run("r").as_dict() == state.history.run("r").as_dict()
    assert again.history.run("r").counters.groups == 2 + 4 * 3
    check_state(again)
