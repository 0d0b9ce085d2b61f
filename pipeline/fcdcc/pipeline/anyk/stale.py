"""Results that come too late: of a task that was taken from its worker and made elsewhere.

Dask answers such a result by telling the worker to let the key go. It was told so already,
when the task was taken from it. By the time of the second word it may have fetched that key
from the other worker, as the input of a task that it has in its queue, and that task would
then fail with a ``KeyError``. So for tasks of ours nothing is answered.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dask.typing import Key
    from distributed.scheduler import Scheduler

__all__ = ["ignore_stale"]


def ignore_stale(scheduler: Scheduler, ours: Collection[Key]) -> None:
    """Let a scheduler pass over late results of tasks that another worker has made since."""
    usual = scheduler.handle_task_finished

    def handle(key: Key, worker: str, stimulus_id: str, **message: Any) -> None:
        task = scheduler.tasks.get(key)
        is_made = task is not None and task.state == "memory" and key in ours
        if task is not None and is_made and task.run_id != message.get("run_id"):
            return
        usual(key=key, worker=worker, stimulus_id=stimulus_id, **message)

    scheduler.stream_handlers["task-finished"] = handle
