"""Run a command at given times in the foreground: one run at a time, each in its own process.

When a process ends, even by a crash, its memory and threads are free for the next run. A time
during the previous run is skipped. One run makes up for all times that were missed because the
machine slept.
"""

from __future__ import annotations

import logging
import subprocess
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime

from apscheduler.events import EVENT_JOB_MAX_INSTANCES, EVENT_JOB_MISSED, JobExecutionEvent
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.combining import OrTrigger
from apscheduler.triggers.cron import CronTrigger

from .cron import WEEKDAYS, CronTimes, comma_list

logger = logging.getLogger(__name__)

STOP_TIMEOUT_SECONDS = 20.0
"""Time that a run has to end after SIGTERM before it is killed."""


def cron_trigger(times: CronTimes, timezone: str | None) -> BaseTrigger:
    """Return a trigger of APScheduler for the times of a cron expression."""
    triggers = [
        CronTrigger(
            minute=comma_list(times.minutes, range(60)),
            hour=comma_list(times.hours, range(24)),
            month=comma_list(times.months, range(1, 13)),
            day=comma_list(option.days, range(1, 32)),
            day_of_week=",".join(WEEKDAYS[day] for day in option.weekdays),
            timezone=timezone,
        )
        for option in times.days
    ]
    return triggers[0] if len(triggers) == 1 else OrTrigger(triggers)


def run_at_times(
    command: Sequence[str],
    trigger: BaseTrigger,
    *,
    runs: int | None = None,
    now: bool = False,
    report: Callable[[str], None],
) -> list[int]:
    """Run a command at the times of a trigger; return the exit codes.

    Parameters
    ----------
    command
        The command and its arguments.
    trigger
        Times of the runs.
    runs
        End after this many runs; None goes on until the process is interrupted.
    now
        Whether to start a first run at once.
    report
        Called with a line for every run that begins, ends or is skipped.

    Raises
    ------
    KeyboardInterrupt
        If the process is interrupted; the current run has then ended as well.
    """
    codes: list[int] = []
    enough = threading.Event()
    current: list[subprocess.Popen[bytes]] = []

    def once() -> None:
        if enough.is_set():
            return
        report("a run begins")
        # In a new session, Ctrl-C reaches only this process, which then sends SIGTERM once.
        process = subprocess.Popen(command, start_new_session=True)  # noqa: S603 - the command is ours
        current[:] = [process]
        codes.append(process.wait())
        current.clear()
        report(f"the run ended with code {codes[-1]}")
        if runs is not None and len(codes) >= runs:
            enough.set()

    def report_skipped(event: JobExecutionEvent) -> None:
        missed = event.code == EVENT_JOB_MISSED
        report(
            "a run was missed" if missed else "the last run is in progress: this time is skipped"
        )

    scheduler = BackgroundScheduler(
        job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None}
    )
    scheduler.add_listener(report_skipped, EVENT_JOB_MISSED | EVENT_JOB_MAX_INSTANCES)
    began = datetime.now(scheduler.timezone)
    following = trigger.get_next_fire_time(None, began)
    # One job for both, so that a run that was started at once is never joined by another one.
    scheduler.add_job(once, trigger, next_run_time=began if now else following)
    scheduler.start()
    if not (now and runs == 1):
        report(f"the next run is at {following:%Y-%m-%d %H:%M %Z}")
    try:
        while not enough.wait(3600):
            pass
    finally:
        enough.set()
        for process in current:
            _stop(process)
        scheduler.shutdown(wait=True)
    return codes


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Send SIGTERM to a run, and kill it if it does not end in time."""
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        process.wait(STOP_TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
