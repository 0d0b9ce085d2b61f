"""Unit files for existing schedulers: systemd, cron and Kubernetes.

All of them start the same command, which takes care of the lock, of continuing and of exit
codes. Paths are quoted as each scheduler requires.
"""

from __future__ import annotations

import getpass
import os
import re
import shlex
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import yaml

from fcdcc.coding import __version__
from fcdcc.storage.locations import has_secrets, shown

from ...errors import OptionError
from ..process_exit import ExitCode
from .cron import WEEKDAYS, CronTimes, kubernetes_schedule

JOB_MOUNT_PATH = "/etc/fcdcc"
"""Folder in the container for the job file, where no volume claim is given."""

CACHE_MOUNT_PATH = "/var/cache/fcdcc"
"""Folder in the container for what a run keeps for later ones: measured speeds of workers."""

JOB_FILE_NAME = "job.toml"

POD_RETRIES = 6
"""Kubernetes waits 10, 20, 40, 80, 160 and 300 seconds before these attempts. Together that is
more than the 300 seconds after which the lock of a run that has died is taken over."""

UNKNOWN_FOLDER = "FOLDER"
"""What stands in a unit for a folder of pictures that is not known."""

CONTAINER_USER = 1000
"""Number of the user and of the group in the image of examples/deploy/Dockerfile."""


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
    program
        The words that call ``fcdcc``, without a PATH.
    input
        Absolute path or URL of the images.
    folder
        Absolute path of the folder of pictures that they were last made from; None if not known.
    """

    job: Path
    times: CronTimes
    timezone: str | None
    program: Sequence[str]
    input: str
    folder: str | None = None

    def __post_init__(self) -> None:
        for text in (str(self.job), *self.program, self.input):
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
        return [*self.program, "run", "--config", str(self.job)]

    @property
    def ingest_command(self) -> list[str]:
        """The command line that adds new pictures of a folder to the images before a run."""
        return [*self.program, "ingest", self.folder or UNKNOWN_FOLDER, shown(self.input)]


def _ingest_comment(folder: str | None) -> str:
    """Return the comment above the commented lines that start ``fcdcc ingest`` for a folder."""
    how = (
        f"as below, with the name of the folder in place of {UNKNOWN_FOLDER}"
        if folder is None
        else "as below, where the folder is the one that the images were last made from"
    )
    return (
        "# This starts fcdcc run alone: for a folder of pictures, start fcdcc ingest first,\n"
        f"# {how}"
    )


def systemd_units(unit: ScheduledJob) -> dict[str, str]:
    """Return a service and its timer by their file names."""
    command, ingest = (
        " ".join(_systemd_quoted(word) for word in words)
        for words in (unit.command, unit.ingest_command)
    )
    name = unit.job.name.replace("%", "%%")
    folder = str(unit.job.parent).replace("%", "%%")
    calendar = "\n".join(f"OnCalendar={line}" for line in calendar_lines(unit))
    service = f"""\
[Unit]
Description=fcdcc run of {name}
Wants=network-online.target
After=network-online.target

[Service]
Type=oneshot
# Without User= a unit of the machine runs, and owns what it writes, as root.
# User={_user_name()}
# Credentials of object stores: a file that only its owner can read, with lines such as
# AWS_ACCESS_KEY_ID=…
# EnvironmentFile=/etc/{unit.name}.env
WorkingDirectory={folder}
{_ingest_comment(unit.folder)}
# ExecStartPre={ingest}
ExecStart={command}
TimeoutStartSec=infinity
TimeoutStopSec=30
KillMode=mixed
# {ExitCode.LOCKED:d}: another run holds the output
SuccessExitStatus={ExitCode.LOCKED:d}
"""
    timer = f"""\
# To start it at these times: {enable_command(unit)}
[Unit]
Description=times of fcdcc run of {name}

[Timer]
{calendar}
# one run for all that were missed while the machine was off
Persistent=true

[Install]
WantedBy=timers.target
"""
    return {f"{unit.name}.service": service, f"{unit.name}.timer": timer}


def _user_name() -> str:
    """Return the name of the present user, or a word in its place where the system has none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "NAME"


def enable_command(unit: ScheduledJob) -> str:
    """Return the command by which systemd starts a job at its times, once it has the units."""
    return f"systemctl enable --now {unit.name}.timer"


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
    """Return a line for a crontab, below comments.

    The output of runs goes to a log file beside the job file. Only a failure prints a line, since
    cron mails what a command prints and ignores its exit code.

    Raises
    ------
    OptionError
        If the job has a time zone: many crons, Debian's among them, know only the machine's.
    """
    if unit.timezone:
        raise OptionError(
            f"--timezone {unit.timezone} with --print cron: cron starts jobs by the time zone of "
            "the machine; leave --timezone out and give --cron in that time, or use --print systemd"
        )
    log = shlex.quote(str(unit.job.with_suffix(".log")))
    run, ingest = shlex.join(unit.command), shlex.join(unit.ingest_command)
    locked = int(ExitCode.LOCKED)
    failed = (
        f"{{ code=$?; [ $code = {locked} ] || "
        f'{{ echo "{unit.name} failed with code $code, see" {log}; exit $code; }}; }}'
    )
    line, both = (
        # cron reads an unescaped % as a line break
        f"{unit.times.text} {command} >> {log} 2>&1 || {failed}".replace("%", r"\%")
        for command in (run, f"{{ {ingest} && {run}; }}")
    )
    return f"""\
# cron mails the line that a failure prints. Code {locked} is none: another run holds the output.
# Credentials of object stores: cron does not know the variables of your shell. Write lines such as
# export AWS_ACCESS_KEY_ID=… to a file that only you can read, and put before the command:
# . /PATH/OF/FILE &&
{_ingest_comment(unit.folder)}
# {both}
{line}
"""


@dataclass(frozen=True)
class Pod:
    """What a job needs of Kubernetes.

    Parameters
    ----------
    image
        Container image with this package.
    claim
        Name and mount path of the volume claim with the job's files; None where they are all in
        object stores.
    cpus
        Processors; the job starts one local worker for each.
    memory
        Memory, as Kubernetes writes it.
    """

    image: str = f"fcdcc:{__version__}"
    claim: tuple[str, str] | None = None
    cpus: int = 2
    memory: str = "4Gi"


def kubernetes_unit(unit: ScheduledJob, text: str, pod: Pod) -> str:
    """Return a ConfigMap with the job file and a CronJob that runs it, as YAML.

    The job file is mounted into the folder of the volume claim, so that its relative paths are
    those of the claim.

    Parameters
    ----------
    unit
        The job and its times.
    text
        Contents of the job file.
    pod
        What the job needs.

    Raises
    ------
    OptionError
        If Kubernetes cannot start jobs at these times.
    """
    folder = JOB_MOUNT_PATH if pod.claim is None else pod.claim[1]
    job_file = PurePosixPath(folder) / unit.job.name
    # Every later mount may lie inside an earlier one.
    mounts: list[dict[str, object]] = [
        {"name": "cache", "mountPath": CACHE_MOUNT_PATH},
        {"name": "job", "mountPath": str(job_file), "subPath": JOB_FILE_NAME, "readOnly": True},
    ]
    volumes: list[dict[str, object]] = [
        {"name": "cache", "emptyDir": {}},
        {"name": "job", "configMap": {"name": unit.name}},
    ]
    if pod.claim is not None:
        mounts.insert(0, {"name": "data", "mountPath": folder})
        volumes.insert(0, {"name": "data", "persistentVolumeClaim": {"claimName": pod.claim[0]}})
    container = {
        "name": "run",
        "image": pod.image,
        "command": ["fcdcc", "run", "--config", str(job_file)],
        "env": [
            {"name": "HOME", "value": CACHE_MOUNT_PATH},
            {"name": "XDG_CACHE_HOME", "value": CACHE_MOUNT_PATH},
        ],
        "resources": {
            "requests": {"cpu": pod.cpus, "memory": pod.memory},
            "limits": {"cpu": pod.cpus, "memory": pod.memory},
        },
        "volumeMounts": mounts,
    }
    template = {
        "spec": {
            "restartPolicy": "Never",
            "securityContext": {
                "runAsUser": CONTAINER_USER,
                "runAsNonRoot": True,
                "fsGroup": CONTAINER_USER,
            },
            "terminationGracePeriodSeconds": 30,
            "containers": [container],
            "volumes": volumes,
        }
    }
    bad_input = {"containerName": "run", "operator": "In", "values": [int(ExitCode.BAD_INPUT)]}
    spec: dict[str, object] = {"schedule": kubernetes_schedule(unit.times)}
    if unit.timezone:
        spec["timeZone"] = unit.timezone
    spec |= {
        "concurrencyPolicy": "Forbid",
        "startingDeadlineSeconds": 3600,
        "jobTemplate": {
            "spec": {
                "backoffLimit": POD_RETRIES,
                "podFailurePolicy": {"rules": [{"action": "FailJob", "onExitCodes": bad_input}]},
                "template": template,
            }
        },
    }
    metadata = {"name": unit.name}
    config_map = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata,
        "data": {JOB_FILE_NAME: text},
    }
    cron_job = {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": metadata, "spec": spec}
    parts = [config_map, cron_job]
    pictures = None if pod.claim is None else _folder_in_container(unit, folder)
    images = shown(_path_in_container(unit.input, unit.job, folder))
    ingest = {
        "name": "ingest",
        "image": pod.image,
        "command": ["fcdcc", "ingest", pictures or UNKNOWN_FOLDER, images],
        "env": container["env"],
        "volumeMounts": mounts,
    }
    config_text, job_text = (_as_yaml(part) for part in parts)
    job_text = _with_secret_comment(job_text, unit.name)
    above, containers, below = re.split(
        r"^( +containers:\n)", job_text, maxsplit=1, flags=re.MULTILINE
    )
    margin = " " * (len(containers) - len(containers.lstrip()))
    init_text = _with_secret_comment(_as_yaml({"initContainers": [ingest]}), unit.name)
    init = textwrap.indent(init_text, "# ")
    commented = textwrap.indent(f"{_ingest_comment(pictures)}\n{init}", margin)
    head = ""
    if pod.image == Pod.image:
        head = (
            f"# The image {pod.image}: build it in a clone with examples/deploy/Dockerfile,\n"
            f"# docker build -f examples/deploy/Dockerfile -t {pod.image} ., and push it to where\n"
            "# the cluster finds it, or name another one with --image.\n"
        )
    if pod.claim is not None:
        head += (
            f"# Relative paths of the job begin at the root of the claim {pod.claim[0]}, which is\n"
            f"# mounted at {folder}.\n"
        )
    return f"{head}{config_text}---\n{above}{commented}{containers}{below}"


def _with_secret_comment(text: str, name: str) -> str:
    """Return YAML with commented lines that take credentials from a Secret above its ``env:``."""
    comment = f"""\
# Credentials of object stores, from a file with lines such as AWS_ACCESS_KEY_ID=…:
# kubectl create secret generic {name} --from-env-file=FILE
# envFrom:
# - secretRef:
#     name: {name}
"""
    above, margin, below = re.split(r"^( +)(?=env:\n)", text, maxsplit=1, flags=re.MULTILINE)
    return f"{above}{textwrap.indent(comment, margin)}{margin}{below}"


def check_no_credentials(options: Mapping[str, object]) -> None:
    """Check that a job file has no credentials, since a ConfigMap does not keep them secret.

    Parameters
    ----------
    options
        The options in the job file.

    Raises
    ------
    OptionError
        If an option is a URL with credentials or with a query, which may have some.
    """
    for option, value in options.items():
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and has_secrets(text):
                raise OptionError(
                    f"{option.replace('_', '-')} = {shown(text)!r} has credentials in its URL "
                    "(before an @ or after a ?), which --print kubernetes would write into a "
                    "ConfigMap: take them out of the job file, and give them by the environment, "
                    "such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY from a Secret"
                )


def _is_this_machine(host: str) -> bool:
    """Return whether a host is the machine itself, for whoever connects."""
    try:
        address = ip_address(host)
    except ValueError:
        return host == "localhost"
    return address.is_loopback or address.is_unspecified


def check_reachable_scheduler(scheduler: object) -> None:
    """Check that the address of a scheduler is not that of the machine itself.

    Raises
    ------
    OptionError
        If it is: in a container, that is the container.
    """
    address = str(scheduler or "")
    try:
        host = urlsplit(address if "://" in address else f"//{address}").hostname or ""
    except ValueError as error:
        raise OptionError(f"scheduler = {scheduler!r} is no address: {error}") from None
    if _is_this_machine(host):
        raise OptionError(
            f"scheduler = {scheduler!r} is an address of this machine alone, and in a container "
            "nothing listens there: give one that pods reach, such as the name of a service"
        )


def _folder_in_container(unit: ScheduledJob, claim: str) -> str | None:
    """Return the path of the folder of pictures; None if the volume claim does not have it."""
    path = None if unit.folder is None else _path_in_container(unit.folder, unit.job, claim)
    is_there = path is not None and PurePosixPath(os.path.normpath(path)).is_relative_to(claim)
    return path if is_there else None


def _path_in_container(path: str, job: Path, folder: str) -> str:
    """Return a path below the job file's folder where that is ``folder``; others and URLs stay."""
    place = PurePosixPath(os.path.normpath(path))
    if "://" in path or not place.is_relative_to(job.parent):
        return path
    return str(PurePosixPath(folder) / place.relative_to(job.parent))


def check_container_paths(job: Path, paths: Mapping[str, str], pod: Pod) -> None:
    """Check that local files of a job can be in its container.

    Parameters
    ----------
    job
        The job file; relative paths start from its folder.
    paths
        Absolute paths and URLs in the job file, by option.
    pod
        What the job needs.

    Raises
    ------
    OptionError
        If a file is neither below the job file's folder nor below the claim's mount path.
    """
    for option, path in paths.items():
        if "://" in path or path == "-":
            continue
        key = option.replace("_", "-")
        if pod.claim is None:
            raise OptionError(
                f"{key} = {path!r} is a local file, which a container does not have: give "
                "--claim NAME:/PATH with the volume claim that has it, or use URLs of object stores"
            )
        place = PurePosixPath(os.path.normpath(path))
        if not (place.is_relative_to(job.parent) or place.is_relative_to(pod.claim[1])):
            raise OptionError(
                f"{key} = {path!r} is not in the claim, which is mounted at {pod.claim[1]}; "
                f"expected a relative path, or one below {pod.claim[1]}"
            )


class _Dumper(yaml.SafeDumper):
    """Writes text of several lines as YAML's literal blocks, and repeats instead of aliases."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 - the base class's signature
        return True


def _literal(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _literal)


def _as_yaml(value: object) -> str:
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
