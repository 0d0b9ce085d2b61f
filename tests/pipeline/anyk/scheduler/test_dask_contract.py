"""Dask has what the plugin relies on, and a change of it is reported in words."""

from __future__ import annotations

from typing import Any

import distributed.scheduler
import pytest
from dask._task_spec import Task
from distributed import Client
from distributed.scheduler import Scheduler, SchedulerState

from fcdcc.pipeline.anyk import AnyKPlugin, UnsupportedDaskError
from fcdcc.pipeline.anyk.scheduler import dask_contract
from support.anyk_cluster import Errors, threaded_cluster


def test_dask_is_as_the_plugin_needs_it() -> None:
    found = dask_contract.breaches()
    assert not found, (
        "this version of Dask differs from what the any-k plugin relies on; read "
        "anyk/scheduler/graph_edits.py against distributed/scheduler.py: " + "; ".join(found)
    )
    dask_contract.check_contract()


class LesserTask:
    __slots__ = ("dependencies", "dependents")


def without_transition(patch: pytest.MonkeyPatch) -> None:
    table = dict(SchedulerState._TRANSITIONS_TABLE)
    del table["processing", "released"]
    patch.setattr(SchedulerState, "_TRANSITIONS_TABLE", table)


def without_close(patch: pytest.MonkeyPatch) -> None:
    async def remove_worker(self: Scheduler, address: str, *, stimulus_id: str) -> None: ...

    patch.setattr(Scheduler, "remove_worker", remove_worker)


def without_slots(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(dask_contract, "TaskState", LesserTask)


def without_cancelling(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(dask_contract, "WorkerTaskStateState", str)


def without_queue(patch: pytest.MonkeyPatch) -> None:
    patch.delattr(Scheduler, "stimulus_queue_slots_maybe_opened")


def without_block_fusion(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(dask_contract, "Task", object)


def with_another_substitute(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(dask_contract.AnyK, "substitute", lambda node, subs: node)


def with_other_arguments(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(dask_contract.AnyK, "substitute", Task.copy)


def older(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(dask_contract, "version", lambda _: "2025.5.1")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without_transition, "cannot move a task from 'processing' to 'released'"),
        (without_close, "Scheduler.remove_worker takes no 'close'"),
        (without_slots, r"no 'waiting_on' \(the inputs that are not there yet\)"),
        (without_cancelling, "a worker's task cannot be 'cancelled'"),
        (without_queue, "Scheduler has no 'stimulus_queue_slots_maybe_opened'"),
        (without_block_fusion, "cannot refuse to be merged"),
        (with_another_substitute, "cannot be put in place of a graph node's input"),
        (with_other_arguments, "cannot be put in place of a graph node's input"),
        (older, r"older than 2025\.7\.0"),
    ],
)
def test_a_change_is_reported_in_words(change: Any, words: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        change(patch)
        with pytest.raises(UnsupportedDaskError, match=words):
            dask_contract.check_contract()
    dask_contract.check_contract()


def test_the_plugin_refuses_a_scheduler_that_differs(
    errors: Errors, monkeypatch: pytest.MonkeyPatch
) -> None:
    with threaded_cluster(1) as cluster, Client(cluster) as client:
        monkeypatch.delattr(distributed.scheduler.Scheduler, "stimulus_queue_slots_maybe_opened")
        with pytest.raises(UnsupportedDaskError, match="run without the plugin"):
            client.register_plugin(AnyKPlugin())
        assert "fcdcc-anyk" not in cluster.scheduler.plugins
        monkeypatch.undo()
    errors.messages.clear()  # Dask logs what a handler raises
