"""``fcdcc schedule``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal
from zoneinfo import ZoneInfo

import click

from ..errors import OptionError
from ..options import JobConfig
from .job_file import read_job_file
from .scheduling.cron import parse_cron
from .scheduling.unit_files import ScheduledJob, cron_unit, kubernetes_unit, systemd_unit


@click.command()
@click.argument("job", metavar="JOB.toml")
@click.option(
    "--cron", required=True, help="times of the runs in cron's five fields, such as '0 2 * * *'"
)
@click.option(
    "--timezone", help="time zone of --cron, such as Europe/Zurich; by default that of the machine"
)
@click.option("--now", is_flag=True, help="start a first run at once")
@click.option("--runs", type=click.IntRange(min=1), help="end after this many runs")
@click.option(
    "--print",
    "target",
    type=click.Choice(["systemd", "cron", "kubernetes"]),
    help="print a unit file for this scheduler, and run nothing",
)
@click.option(
    "--image", help="with --print kubernetes: the container image  [default: fcdcc:VERSION]"
)
@click.option(
    "--claim",
    metavar="NAME:/PATH",
    help="with --print kubernetes: a volume claim, and the path where it is mounted",
)
def schedule(
    job: str,
    cron: str,
    timezone: str | None,
    now: bool,
    runs: int | None,
    target: Literal["systemd", "cron", "kubernetes"] | None,
    image: str | None,
    claim: str | None,
) -> None:
    """Run the job in JOB.toml at the times of --cron, in the foreground, until it is stopped.

    One run at a time: a time during the previous run is skipped. One run makes up for all times
    that were missed while the machine slept.
    """
    times = parse_cron(cron)
    _check_time_zone(timezone)
    JobConfig.of(**read_job_file(job).job)
    unit = ScheduledJob(Path(job).resolve(), times, timezone, sys.executable)
    if target == "systemd":
        click.echo(systemd_unit(unit), nl=False)
    elif target == "cron":
        click.echo(cron_unit(unit), nl=False)
    elif target == "kubernetes":
        text = unit.job.read_text(encoding="utf-8")
        click.echo(kubernetes_unit(unit, text, image, _parse_claim(claim)), nl=False)
    else:
        from .scheduling.foreground import cron_trigger, run_at_times

        trigger = cron_trigger(times, timezone)
        run_at_times(unit.command, trigger, runs=runs, now=now, report=_print_line)


def _print_line(line: str) -> None:
    click.echo(f"fcdcc: {line}", err=True)


def _check_time_zone(name: str | None) -> None:
    try:
        if name is not None:
            ZoneInfo(name)
    except (KeyError, OSError, ValueError) as error:
        raise OptionError(
            f"--timezone {name!r} is not known; expected a name such as Europe/Zurich"
        ) from error


def _parse_claim(text: str | None) -> tuple[str, str] | None:
    """Return the name and the mount path of a volume claim; None without one."""
    if text is None:
        return None
    name, _, path = text.partition(":")
    if not name or not path.startswith("/"):
        raise OptionError(f"--claim {text!r}; expected NAME:/PATH, such as images:/data")
    return name, path
