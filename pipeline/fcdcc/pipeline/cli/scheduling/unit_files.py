"""Unit files for existing schedulers: systemd, cron and Kubernetes.

All of them start the same command, which takes care of the lock, of continuing and of exit
codes. Paths are quoted as each scheduler requires.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fcdcc.coding import __version__

from ...errors import OptionError
from .cron import WEEKDAYS, CronTimes

JOB_MOUNT_PATH = "/etc/fcdcc"
"""Folder in the container where Kubernetes mounts the job file."""

JOB_FILE_NAME = "job.toml"


@dataclass(frozen=True)
class ScheduledJob:
    """A job that runs at given times.

    Parameters
    ----------
    job
        Absolute path of the job file.
    times
        Times of the runs.
    timezone
        Name of the time zone; None for that of the machine.
    python
        Path of an interpreter with this package.
    """

    job: Path
    times: CronTimes
    timezone: str | None
    python: str

    def __post_init__(self) -> None:
        for text in (str(self.job), self.python):
            if not text.isprintable():
                raise OptionError(
                    f"{text!r} cannot be written to a unit file: rename it without line breaks"
                )

    @property
    def name(self) -> str:
        """A name that all schedulers accept: lower-case letters, digits and ``-``."""
        plain = re.sub(r"[^a-z0-9]+", "-", self.job.stem.lower()).strip("-")
        return f"fcdcc-{plain}"[:52].strip("-")

    @property
    def command(self) -> list[str]:
        """The command line of a run."""
        return [self.python, "-m", "fcdcc.pipeline", "run", "--config", str(self.job)]


def systemd_unit(unit: ScheduledJob) -> str:
    """Return a service and its timer, each below a comment with its file name."""
    command = " ".join(_systemd_quoted(word) for word in unit.command)
    folder = str(unit.job.parent).replace("%", "%%")
    calendar = "\n".join(f"OnCalendar={line}" for line in calendar_lines(unit))
    return f"""\
# /etc/systemd/system/{unit.name}.service
[Unit]
Description=fcdcc job {unit.job.stem.replace("%", "%%")}
Wants=network-online.target
After=network-online.target

[Service]
Type=oneshot
WorkingDirectory={folder}
ExecStart={command}
TimeoutStartSec=infinity
TimeoutStopSec=30
KillMode=mixed
# 3: another run holds the output
SuccessExitStatus=3

# /etc/systemd/system/{unit.name}.timer
[Unit]
Description=times of the fcdcc job {unit.job.stem.replace("%", "%%")}

[Timer]
{calendar}
# one run for all that were missed while the machine was off
Persistent=true

[Install]
WantedBy=timers.target
"""


def calendar_lines(unit: ScheduledJob) -> list[str]:
    """Return the times as calendar events of systemd (systemd.time(7)); each starts a run."""
    times, zone = unit.times, f" {unit.timezone}" if unit.timezone else ""
    months = _padded(times.months, range(1, 13))
    clock = f"{_padded(times.hours, range(24))}:{_padded(times.minutes, range(60))}:00"
    lines = []
    for option in times.days:
        names = ",".join(WEEKDAYS[day].capitalize() for day in option.weekdays)
        weekdays = "" if len(option.weekdays) == 7 else f"{names} "
        lines.append(f"{weekdays}*-{months}-{_padded(option.days, range(1, 32))} {clock}{zone}")
    return lines


def _padded(values: Sequence[int], all_values: range) -> str:
    return "*" if len(values) == len(all_values) else ",".join(f"{value:02d}" for value in values)


def _systemd_quoted(word: str) -> str:
    """Return a word for ExecStart (systemd.service(5), command lines)."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"'


def cron_unit(unit: ScheduledJob) -> str:
    """Return lines for a crontab; the output of runs goes to a log file beside the job file."""
    log = unit.job.with_suffix(".log")
    command = f"{shlex.join(unit.command)} >> {shlex.quote(str(log))} 2>&1"
    line = f"{unit.times.text} {command}".replace(
        "%", r"\%"
    )  # cron reads an unescaped % as a line break
    zone = f"CRON_TZ={unit.timezone}\n" if unit.timezone else ""
    return f"{zone}{line}\n"


def kubernetes_unit(
    unit: ScheduledJob, text: str, image: str | None, claim: tuple[str, str] | None
) -> str:
    """Return a ConfigMap with the job file and a CronJob that runs it, as YAML.

    Parameters
    ----------
    text
        Contents of the job file; its paths are valid inside the container.
    image
        Container image with this package; by default ``fcdcc:<version>``.
    claim
        Name and mount path of a volume claim; None without local data.
    """
    command = ["python", *unit.command[1:-1], f"{JOB_MOUNT_PATH}/{JOB_FILE_NAME}"]
    mounts = [{"name": "job", "mountPath": JOB_MOUNT_PATH}]
    volumes: list[dict[str, object]] = [{"name": "job", "configMap": {"name": unit.name}}]
    if claim is not None:
        mounts.append({"name": "data", "mountPath": claim[1]})
        volumes.append({"name": "data", "persistentVolumeClaim": {"claimName": claim[0]}})
    container = {
        "name": "run",
        "image": image or f"fcdcc:{__version__}",
        "command": command,
        "volumeMounts": mounts,
    }
    pod = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 30,
        "containers": [container],
        "volumes": volumes,
    }
    spec: dict[str, object] = {"schedule": unit.times.text}
    if unit.timezone:
        spec["timeZone"] = unit.timezone
    spec |= {
        "concurrencyPolicy": "Forbid",
        "startingDeadlineSeconds": 3600,
        "jobTemplate": {"spec": {"backoffLimit": 2, "template": {"spec": pod}}},
    }
    metadata = {"name": unit.name}
    first = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata,
        "data": {JOB_FILE_NAME: text},
    }
    second = {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": metadata, "spec": spec}
    # JSON is valid YAML, and its quoted strings cannot be mistaken for other types.
    return "\n---\n".join(json.dumps(part, indent=2) for part in (first, second)) + "\n"
