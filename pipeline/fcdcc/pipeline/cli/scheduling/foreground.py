"""A job at given times in the foreground: one run at a time, each in a process of its own.

A process of its own leaves nothing behind, whatever happens in it. Of times that come while
a run is still going on, or that were missed because the machine slept, one run is made up for.
"""

from __future__ import annotations

import logging
import subprocess
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress

from apscheduler.events import EVENT_JOB_MAX_INSTANCES, EVENT_JOB_MISSED, JobExecutionEvent
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.combining import OrTrigger
from apscheduler.triggers.cron import CronTrigger

from .cron import WEEKDAYS, CronTimes, listed

logger = logging.getLogger(__name__)

STOPPING = 20.0
"""Seconds that a run may take to end after it was told to."""


def trigger_of(times: CronTimes, timezone: str | None) -> BaseTrigger:
    """Return APScheduler's trigger for these times, by cron's rules."""
    triggers = [
        CronTrigger(
            minute=listed(times.minutes, range(60)),
            hour=listed(times.hours, range(24)),
            month=listed(times.months, range(1, 13)),
            day=listed(option.days, range(1, 32)),
            day_of_week=",".join(WEEKDAYS[day] for day in option.weekdays),
            timezone=timezone,
        )
        for option in times.days
    ]
    return triggers[0] if len(triggers) == 1 else OrTrigger(triggers)


def serve(
    command: Sequence[str],
    trigger: BaseTrigger,
    *,
    runs: int | None = None,
    now: bool = False,
    told: Callable[[str], None],
) -> list[int]:
    """Start a command at the trigger's times until told to stop; return the exit codes.

    Parameters
    ----------
    command
        What is started.
    trigger
        When.
    runs
        End after so many; None goes on until the process is interrupted.
    now
        Whether to start the first at once.
    told
        Gets a line for every run that begins, ends or is passed over.

    Raises
    ------
    KeyboardInterrupt
        If the process is told to stop; the run that is going on has then ended, too.
    """
    codes: list[int] = []
    enough = threading.Event()
    current: list[subprocess.Popen[bytes]] = []

    def once() -> None:
        if enough.is_set():
            return
        told("a run begins")
        # In a session of its own a terminal's Ctrl-C reaches us alone, who pass it on once.
        process = subprocess.Popen(command, start_new_session=True)  # noqa: S603 - our own command
        current[:] = [process]
        codes.append(process.wait())
        current.clear()
        told(f"the run ended with code {codes[-1]}")
        if runs is not None and len(codes) >= runs:
            enough.set()

    def passed_over(event: JobExecutionEvent) -> None:
        missed = event.code == EVENT_JOB_MISSED
        told("a run was missed" if missed else "the last run goes on: this time is passed over")

    scheduler = BackgroundScheduler(
        job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None}
    )
    scheduler.add_listener(passed_over, EVENT_JOB_MISSED | EVENT_JOB_MAX_INSTANCES)
    job = scheduler.add_job(once, trigger)
    if now:
        scheduler.add_job(once)
    scheduler.start()
    told(f"the next run is at {job.next_run_time:%Y-%m-%d %H:%M %Z}")
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
    """Tell a run to end, and end it if it does not."""
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        process.wait(STOPPING)
    except subprocess.TimeoutExpired:
        process.kill()
