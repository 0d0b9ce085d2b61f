"""What an event costs does not depend on how many workers and groups there are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any, TypeVar

from fcdcc.pipeline.anyk.state_machine import events
from fcdcc.pipeline.anyk.state_machine.state import AnyKState
from simulation import ShiftedExponential, SimulatedCluster, chain, one_layer

T = TypeVar("T")

RARE = (events.Tick, events.WorkerJoined, events.WorkerLeft, events.WorkerStatus)
"""Events that may cost more on a larger cluster."""


class Watched(dict[Any, T]):
    """A dictionary that tells whenever somebody goes through all of it."""

    def __init__(self, walks: Counter[str], name: str) -> None:
        self._walks, self._name = walks, name

    def values(self) -> Any:
        self._walks[self._name] += 1
        return super().values()

    def items(self) -> Any:
        self._walks[self._name] += 1
        return super().items()

    def __iter__(self) -> Any:
        self._walks[self._name] += 1
        return super().__iter__()


class WatchedState(AnyKState):
    """A state machine that notes which events made it go through all workers, groups or blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.walks: Counter[str] = Counter()
        self.walked: Counter[str] = Counter()
        self.told: Counter[str] = Counter()
        self.workers.by_address = Watched(self.walks, "workers")
        for name in ("groups", "blocks", "shares", "nodes"):
            setattr(self.registry, name, Watched(self.walks, name))
        self._shares, self._nodes = self.registry.shares, self.registry.nodes

    def handle(self, event: events.Event) -> tuple[events.Instruction, ...]:
        before = self.walks.copy()
        answer = super().handle(event)
        name = type(event).__name__
        if isinstance(event, events.TaskChanged):
            name = f"{event.kind} {event.state}"
        self.told[name] += 1
        if not isinstance(event, RARE):
            self.walked.update(f"{name}: {n}" for n in self.walks - before)
        return answer


def run(blocks: Iterable[Any]) -> WatchedState:
    state = WatchedState()
    cluster = SimulatedCluster(state, ShiftedExponential(1))
    for number in range(60):
        cluster.join(f"w{number}", f"host{number // 4}")
    cluster.run(blocks, 10)
    return state


def test_no_event_looks_at_all_workers_or_groups() -> None:
    for state in (
        run(one_layer(block, 6, 4, standby=True) for block in range(40)),
        run(chain(block, 6, 4, 3) for block in range(20)),
    ):
        assert state.walks["workers"] > 0  # when it looks at the clock
        assert {"GroupsAdded", "share done", "Settle", "Forgotten"} <= state.told.keys()
        assert state.walked == {"GroupsAdded: workers": 1}  # the first after workers joined
