"""A stalled run warns, and names what it waits for."""

from __future__ import annotations

from fcdcc.pipeline.anyk.keys import ATTEMPT_STRIDE, INPUT_LAYER
from fcdcc.pipeline.anyk.queries import WaitingTask
from fcdcc.pipeline.runtime.stall_guard import StallGuard, describe_stall


def task(position: int, worker: str | None = "tcp://a") -> WaitingTask:
    return WaitingTask(12, 3, "share", position, worker, 58.0)


def test_warnings_start_after_the_patience_and_become_rarer() -> None:
    guard = StallGuard(patience=60, now=0.0)
    warned = []
    for now in range(1, 600):
        tasks = [task(2)] if guard.wants_tasks(now) else None
        if guard.check("counts", tasks, now) is not None:
            warned.append(now)
    assert warned == [61, 121, 241, 481]


def test_anything_that_moves_starts_the_patience_anew() -> None:
    guard = StallGuard(patience=60, now=0.0)
    for now in range(300):
        moved = [task(now // 50)] if guard.wants_tasks(now) else None
        assert guard.check(now // 55 if now < 150 else "still", moved, now) is None


def test_tasks_and_workers_are_named() -> None:
    tasks = [task(2), task(4, None), WaitingTask(13, 0, "read", 0, "tcp://b", 0.1)]
    assert describe_stall(61.0, tasks, workers=3) == (
        "nothing has moved for 61 s: block 12, layer 3: share 2 on tcp://a (silent for 58 s), "
        "share 4 has no worker that may run it; block 13, reading the images: "
        "read 0 on tcp://b"
    )


def test_numbers_in_keys_that_are_no_layers_blocks_or_shares_are_not_shown() -> None:
    tasks = [
        WaitingTask(5, INPUT_LAYER, "read", 2, "tcp://a", 0.1),
        WaitingTask(7, 2, "share", ATTEMPT_STRIDE + 4, "tcp://a", 0.1),
        WaitingTask(7, 9, "write", 0, "tcp://b", 0.1),
    ]
    assert describe_stall(61.0, tasks, workers=3, last_layer=8) == (
        "nothing has moved for 61 s: chunk 5 of the images: read on tcp://a; "
        "block 7, layer 2: share 4 on tcp://a; block 7, writing predictions: write on tcp://b"
    )
    tasks = [
        WaitingTask(5, INPUT_LAYER, "halo", 2, "tcp://a", 0.1),
        WaitingTask(5, 9, "glue", 0, "tcp://b", 0.1),
    ]
    assert describe_stall(61.0, tasks, workers=3, last_layer=8) == (
        "nothing has moved for 61 s: block 5, reading the images: halo 2 on tcp://a; "
        "block 5, after the last convolution: glue 0 on tcp://b"
    )


def test_without_the_plugin_only_the_time_is_known() -> None:
    assert describe_stall(61.0, None, workers=3) == "nothing has moved for 61 s"
