"""What lost workers cost in seconds, estimated from when the blocks of a run were done."""

from __future__ import annotations

import heapq
import random
from statistics import mean

import pytest

from fcdcc.pipeline.monitoring.record.loss_cost import (
    BlockTimes,
    LossCost,
    WorkerLoss,
    loss_sentence,
)

HEARD, GONE, STALL = 24.0, 29.0, 6.0


def simulated(
    seed: int, in_flight: int, stall: float, blocks: int = 60, heard: float = HEARD
) -> LossCost:
    """Return the estimate for a run of a block a second in which all blocks stall once."""
    draw, times, now = random.Random(seed), BlockTimes(), 0.0
    waiting, running = iter(range(blocks)), list[tuple[float, int]]()
    while True:
        for block in [b for _, b in zip(range(in_flight - len(running)), waiting, strict=False)]:
            times.begin(block, now)
            heapq.heappush(running, (now + in_flight * draw.uniform(0.7, 1.3), block))
        if not running:
            break
        if stall and running[0][0] > heard:
            running, stall = [(end + stall, block) for end, block in running], 0.0
        now, block = heapq.heappop(running)
        times.end(block, now, is_done=True)
    times.note_loss(WorkerLoss("tcp://a:1", heard, max(heard, 0.0) + GONE - HEARD))
    cost = times.cost(now)
    assert cost is not None
    return cost


@pytest.mark.parametrize("in_flight", [2, 6])
def test_the_estimate_is_what_was_really_lost_on_average(in_flight: int) -> None:
    costs = [simulated(seed, in_flight, STALL).cost_seconds or 0.0 for seed in range(40)]
    assert mean(costs) == pytest.approx(STALL, abs=1.0)


@pytest.mark.parametrize("in_flight", [2, 6])
@pytest.mark.parametrize("heard", [-4.0, 0.2])
def test_what_a_loss_at_the_start_cost_is_estimated_from_the_blocks_afterwards(
    in_flight: int, heard: float
) -> None:
    found = [simulated(seed, in_flight, STALL, heard=heard) for seed in range(40)]
    assert all(cost.from_start for cost in found)
    # The first blocks of a run, which begin together, take longer than later ones.
    most = STALL + in_flight
    assert STALL - 1.0 < mean(cost.cost_seconds or 0.0 for cost in found) < most
    told = loss_sentence(found[0].to_dict())
    assert told.startswith("the lost worker cost at most about ")
    assert ": from the start of the work until the last block that it could hold up was" in told
    assert told.endswith(" s; the first blocks of a run take longer anyway")
    assert not simulated(0, in_flight, STALL).from_start


@pytest.mark.parametrize("in_flight", [2, 6])
def test_a_loss_that_held_nothing_up_is_told_to_cost_nothing(in_flight: int) -> None:
    costs = [simulated(seed, in_flight, 0.0).cost_seconds for seed in range(40)]
    assert costs.count(0.0) >= 36


def regular(blocks: int = 20) -> BlockTimes:
    """Return the times of blocks that take a second each, one after the other."""
    times = BlockTimes()
    for block in range(blocks):
        times.begin(block, float(block))
        times.end(block, block + 1.0, is_done=True)
    return times


def test_seconds_that_belong_to_several_losses_count_once() -> None:
    times = regular()
    times.note_loss(WorkerLoss("tcp://a:1", 9.5, 12.5))
    times.note_loss(WorkerLoss("tcp://b:1", 10.5, 13.5))
    cost = times.cost(20.0)
    assert cost is not None
    assert (cost.workers, cost.silent, cost.seconds, cost.blocks) == (2, 0, 4.5, 5)


def test_a_worker_that_is_silent_at_the_end_counts_unless_it_was_lost() -> None:
    times, silent = regular(), WorkerLoss("tcp://a:1", 9.5, 12.5)
    cost = times.cost(20.0, [silent])
    assert cost is not None
    assert (cost.workers, cost.silent) == (1, 1)
    assert loss_sentence(cost.to_dict()).startswith("the worker that did not answer at the end")
    times.note_loss(silent)
    cost = times.cost(20.0, [silent])
    assert cost is not None
    assert (cost.workers, cost.silent) == (1, 0)


def test_a_bypassed_worker_is_not_called_lost_and_counts_as_silent_while_it_is() -> None:
    times = regular()
    times.note_loss(WorkerLoss("tcp://a:1", 9.5, 12.5, "bypassed"))
    cost = times.cost(20.0)
    assert cost is not None
    assert (cost.workers, cost.silent, cost.returned) == (1, 0, 1)
    told = loss_sentence(cost.to_dict())
    assert told.startswith("the worker that did not answer for a while cost")
    assert ": from its last sign of life before that until the last block" in told
    cost = times.cost(20.0, [WorkerLoss("tcp://a:1", 9.5, 11.5, "silent")])
    assert cost is not None
    assert (cost.workers, cost.silent, cost.returned, cost.seconds) == (1, 1, 0, 3.5)
    assert loss_sentence(cost.to_dict()).startswith("the worker that did not answer at the end")
    times.note_loss(WorkerLoss("tcp://b:1", 9.5, 12.5, "bypassed"))
    times.note_loss(WorkerLoss("tcp://b:1", 9.5, 13.5, "removed"))
    cost = times.cost(20.0)
    assert cost is not None
    assert (cost.workers, cost.silent, cost.returned) == (2, 0, 1)
    assert "the 2 workers that were lost or did not answer for a while cost" in loss_sentence(
        cost.to_dict()
    )


def test_a_worker_that_was_silent_before_the_first_block_has_no_time_of_its_loss() -> None:
    times = regular()
    early = WorkerLoss("tcp://a:1", -9.0, -7.5, "silent")
    cost = times.cost(20.0, [early])
    assert cost is not None
    assert (cost.workers, cost.silent, cost.early, cost.seconds) == (1, 1, 1, 0.0)
    assert loss_sentence(cost.to_dict()) == (
        "1 worker gave no sign of life when the first block began: others "
        "computed everything from the start, and what that cost is not known"
    )
    times.note_loss(WorkerLoss("tcp://b:1", 9.5, 12.5))
    cost = times.cost(20.0, [early])
    assert cost is not None
    assert (cost.workers, cost.silent, cost.early, cost.blocks) == (2, 1, 1, 4)
    assert cost.cost_seconds is not None
    told = loss_sentence(cost.to_dict())
    assert told.endswith("; 1 worker was given up before the first block began")


def test_without_blocks_at_other_times_nothing_is_estimated() -> None:
    times = regular(blocks=3)
    times.note_loss(WorkerLoss("tcp://a:1", 1.5, 2.5))
    cost = times.cost(3.0)
    assert cost is not None
    assert (cost.seconds, cost.usual_seconds, cost.cost_seconds) == (1.5, None, None)
    assert loss_sentence(cost.to_dict()) == (
        "what the lost worker cost is not known: fewer than 4 blocks to compare with were done at "
        "other times while blocks were still to begin"
    )


def test_times_are_compared_for_the_same_number_of_blocks() -> None:
    loss = {"workers": 1, "silent": 0, "seconds": 19.6, "blocks": 4, "usual_seconds": 11.0,
            "cost_seconds": 8.6}  # fmt: skip
    told = loss_sentence(loss)
    begin = ": from its last sign of life until the last block that it could hold up was done, "
    assert told.endswith(f"{begin}4 blocks took 19.6 s instead of the usual 11.0 s")
    one = loss_sentence(loss | {"blocks": 1})
    assert one.endswith(", 1 block took 19.6 s instead of the usual 11.0 s")
    none = loss_sentence(loss | {"blocks": 0})
    assert none.endswith(": no block was done in the 19.6 s from its last sign of life")
    two = loss_sentence(loss | {"workers": 2})
    assert ": from their last sign of life until the last block that they could hold up" in two


def test_how_much_chance_makes_is_told_with_the_estimate() -> None:
    loss = {"workers": 1, "silent": 0, "seconds": 9.7, "blocks": 5, "usual_seconds": 6.5,
            "cost_seconds": 0.0, "chance_seconds": 3.6}  # fmt: skip
    none = "the lost worker cost no time that can be told from chance (± 3.6 s): from its last sign"
    assert loss_sentence(loss).startswith(none)
    some = loss_sentence(loss | {"cost_seconds": 4.2})
    assert some.startswith("the lost worker cost about 4.2 s ± 3.6 s (an estimate): from its last")


def test_the_begin_of_losses_at_the_start_is_told_for_one_and_for_several_workers() -> None:
    loss = {"workers": 1, "silent": 0, "seconds": 9.0, "blocks": 4, "usual_seconds": 4.0,
            "cost_seconds": 5.0, "from_start": True}  # fmt: skip
    assert ": from the start of the work until the last block" in loss_sentence(loss)
    assert (
        ": from the start of the work, or from their last sign of life where that was later, until "
        "the last block that they could hold up was done, 4 blocks took 9.0 s instead"
    ) in loss_sentence(loss | {"workers": 2})


def test_a_loss_lasts_while_a_block_of_it_is_in_flight() -> None:
    times = regular(blocks=10)
    times.begin(10, 10.0)
    times.note_loss(WorkerLoss("tcp://a:1", 10.5, 11.5))
    cost = times.cost(19.0)
    assert cost is not None
    assert (cost.seconds, cost.blocks) == (8.5, 0)
    times.forget_open()  # its scheduler is gone
    cost = times.cost(19.0)
    assert cost is not None
    assert cost.seconds == 1.0


def test_a_clock_that_is_set_back_does_no_harm() -> None:
    times = regular()
    times.note_loss(WorkerLoss("tcp://a:1", heard=12.0, gone=5.0))
    found = times.cost(20.0, [WorkerLoss("tcp://b:1", heard=15.0, gone=11.0, how="silent")])
    assert found is not None
    assert found.workers == 2
    assert found.seconds >= 0.0


def test_a_run_without_losses_has_no_cost() -> None:
    assert regular().cost(20.0) is None
    assert BlockTimes().cost(1.0, [WorkerLoss("tcp://a:1", 0.0, 0.5)]) is None
