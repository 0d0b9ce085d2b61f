"""A run says that it stood still only where blocks waited for a worker that did not answer."""

from __future__ import annotations

import pytest

from fcdcc.pipeline.monitoring.record.loss_cost import (
    BlockTimes,
    LossCost,
    WorkerLoss,
    lossy_workers,
)
from fcdcc.pipeline.monitoring.record.standstill import standstill_sentence


def cost(*losses: WorkerLoss, pause: float, usual_pause: float = 0.0) -> LossCost:
    """Return the cost of losses in a run of 20 blocks of a second each.

    Block 10 takes ``pause`` seconds longer, from second 10, and block 15 ``usual_pause``.
    """
    times, now = BlockTimes(), 0.0
    for block in range(20):
        times.begin(block, now)
        now += 1.0 + pause * (block == 10) + usual_pause * (block == 15)
        times.end(block, now, is_done=True)
    for loss in losses:
        times.note_loss(loss)
    found = times.cost(now)
    assert found is not None
    return found


def removed(heard: float, gone: float, how: str = "removed") -> WorkerLoss:
    return WorkerLoss(f"tcp://{heard}:1", heard, gone, how)


def said(found: LossCost) -> str:
    loss = found.to_dict()
    return standstill_sentence(loss, lossy_workers(loss))


def test_the_time_is_that_in_which_the_worker_was_silent_until_the_next_block() -> None:
    found = cost(removed(10.5, 14.0), pause=4.0)
    assert found.standstill_seconds == 4.5
    assert said(found) == (
        "for 4.5 s no block was done: 3.5 s until the lost worker was given up, which had what "
        "blocks waited for, and 1.0 s more until the next block"
    )


def test_a_worker_that_is_there_but_did_not_answer_held_it_up_too() -> None:
    found = cost(removed(9.5, 14.0, "bypassed"), pause=4.0)
    assert "until the worker that did not answer for a while was given up, which had" in said(found)


def test_of_several_workers_it_is_not_said_that_all_held_it_up() -> None:
    found = cost(removed(9.5, 14.0), removed(17.2, 18.2), pause=4.0)
    assert " until a silent worker was given up, which had what" in said(found)


@pytest.mark.parametrize(
    ("loss", "pauses"),
    [
        (removed(9.5, 14.0), {"pause": 0.0}),  # blocks went on
        (removed(9.5, 14.0), {"pause": 4.0, "usual_pause": 3.0}),  # such pauses are usual
        (removed(10.5, 14.0, "lost"), {"pause": 4.0}),  # its process ended: nobody waited for it
        (removed(15.5, 17.5), {"pause": 8.0}),  # the run stood still before
        (removed(19.5, 25.0), {"pause": 0.0}),  # no block came after it
        (removed(-5.0, -1.0), {"pause": 4.0}),  # before the first block
    ],
)
def test_nothing_is_said_where_blocks_did_not_wait_for_it(
    loss: WorkerLoss, pauses: dict[str, float]
) -> None:
    assert not said(cost(loss, **pauses))


def test_records_of_earlier_versions_say_nothing() -> None:
    assert not standstill_sentence({"workers": 1, "silent": 0}, "the lost worker")
