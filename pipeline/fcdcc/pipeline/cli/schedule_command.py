"""``fcdcc schedule``."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Literal
from zoneinfo import ZoneInfo

import click

from fcdcc.storage.regular_files import read_text

from ..errors import OptionError
from ..installation import program_command
from ..options import JobConfig
from .command_output import choose_form, say
from .job_file import MAX_FILE_BYTES, PATH_OPTIONS, read_job_file
from .option_groups import job_file_without_comments
from .scheduling.cron import parse_cron
from .scheduling.unit_files import (
    Pod,
    ScheduledJob,
    check_container_paths,
    check_no_credentials,
    check_reachable_scheduler,
    cron_unit,
    enable_command,
    kubernetes_unit,
    systemd_units,
)

MEMORY_SIZE = re.compile(r"[1-9][0-9]{0,11}(Ki|Mi|Gi|Ti|k|M|G|T)?")
"""A size as Kubernetes writes it."""

UNIT_FOLDER = "/etc/systemd/system"
"""Where systemd looks for the units of the machine."""


@click.command(context_settings={"allow_extra_args": True})
@click.argument("job", metavar="JOB.toml")
@click.option(
    "--cron", help="required: times of the runs in cron's five fields, such as '0 2 * * *'"
)
@click.option(
    "--timezone", help="time zone of --cron, such as Europe/Zurich; by default that of the machine"
)
@click.option("--now", is_flag=True, help="start a first run at once")
@click.option("--runs", type=click.IntRange(1, 10**6), help="end after this many runs")
@click.option(
    "--print",
    "target",
    type=click.Choice(["systemd", "cron", "kubernetes"]),
    help="print a unit file for this scheduler, and run nothing",
)
@click.option(
    "--write",
    "folder",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="with --print: write the unit to files in this folder instead; it is made if need be",
)
@click.option(
    "--image", help="with --print kubernetes: the container image  [default: fcdcc:VERSION]"
)
@click.option(
    "--claim",
    metavar="NAME:/PATH",
    help="with --print kubernetes: the volume claim with the job's files, and the path where it "
    "is mounted; relative paths in JOB.toml start from there",
)
@click.option(
    "--cpus",
    type=click.IntRange(1, 1024),
    help="with --print kubernetes: processors of the container  [default: 2]",
)
@click.option(
    "--memory",
    metavar="SIZE",
    help="with --print kubernetes: memory of the container  [default: 4Gi]",
)
@click.pass_context
def schedule(
    ctx: click.Context,
    job: str,
    cron: str | None,
    timezone: str | None,
    now: bool,
    runs: int | None,
    target: Literal["systemd", "cron", "kubernetes"] | None,
    folder: Path | None,
    image: str | None,
    claim: str | None,
    cpus: int | None,
    memory: str | None,
) -> None:
    """Run the job in JOB.toml at the times of --cron, in the foreground, until it is stopped.

    One run at a time: a time during the previous run is skipped. One run makes up for all times
    that were missed while the machine slept. Each is a run of fcdcc run alone: for a folder of
    pictures, start fcdcc ingest before it.
    """
    _refuse_arguments_of_run([job, *ctx.args], cron or "0 2 * * *")
    if cron is None:
        raise OptionError(
            "--cron is missing: give the times of the runs, as in --cron '0 2 * * *', and, for "
            "something else than runs in the foreground, --print systemd, cron or kubernetes"
        )
    times = parse_cron(cron)
    _check_time_zone(timezone)
    path = Path(job).resolve()
    options = read_job_file(path)
    config = JobConfig.of(**options.job)
    pictures = None if target is None else _picture_folder(config.input)
    unit = ScheduledJob(path, times, timezone, program_command(), config.input, pictures)
    if folder is not None and target is None:
        raise OptionError("--write without --print: name the scheduler, as in --print systemd")
    given = {"--image": image, "--claim": claim, "--cpus": cpus, "--memory": memory}
    unused = [name for name, value in given.items() if value is not None]
    if unused and target != "kubernetes":
        raise OptionError(f"{unused[0]} is for --print kubernetes only: leave it out")
    if target == "systemd":
        _print_or_write(systemd_units(unit), folder, UNIT_FOLDER)
        if folder is not None:
            say(f"next, with both files in {UNIT_FOLDER}: {enable_command(unit)}")
    elif target == "cron":
        _print_or_write({f"{unit.name}.cron": cron_unit(unit)}, folder)
    elif target == "kubernetes":
        pod = _pod(image, claim, cpus, memory)
        values = {**options.job, **options.command}
        check_no_credentials(values)
        check_reachable_scheduler(values.get("scheduler"))
        paths = {
            name: str(value)
            for name, value in values.items()
            if name in PATH_OPTIONS and value is not None
        }
        check_container_paths(unit.job, paths, pod)
        text = job_file_without_comments(read_text(unit.job, MAX_FILE_BYTES))
        name = f"{unit.name}.yaml"
        _print_or_write({name: kubernetes_unit(unit, text, pod)}, folder)
        if folder is not None:
            say(f"next: kubectl apply -f {shlex.quote(str(folder / name))}")
    else:
        from .scheduling.foreground import cron_trigger, run_at_times

        def report(line: str) -> None:
            with ctx.scope(cleanup=False):  # it is called in a thread of the scheduler's, too
                say(line)

        choose_form(options.command.get("log_format"))  # as the runs print theirs
        trigger = cron_trigger(times, timezone)
        run_at_times(unit.command, trigger, runs=runs, now=now, report=report)


def _picture_folder(images: str) -> str | None:
    """Return the folder of pictures that images were last made from, if a unit can name it."""
    from fcdcc.storage.ingestion import latest_folder

    folder = latest_folder(images)
    return folder if folder is not None and folder.isprintable() else None


def _refuse_arguments_of_run(arguments: list[str], cron: str) -> None:
    """Raise OptionError if more than a job file is given, or a model file in its place."""
    if len(arguments) == 1 and not arguments[0].endswith(".pt2"):
        return
    given = shlex.join(arguments) if len(arguments) == 3 else "MODEL INPUT OUTPUT"
    raise OptionError(
        f"fcdcc schedule takes one job file, and was given {shlex.join(arguments)}: write one with "
        f"fcdcc run {given} --print-config > job.toml, then type "
        f"fcdcc schedule job.toml --cron {shlex.quote(cron)}"
    )


def _print_or_write(files: Mapping[str, str], folder: Path | None, place: str = "") -> None:
    """Print the files of a unit, or write them to a folder.

    Parameters
    ----------
    files
        Contents by file name.
    folder
        Where to write them, which is made if only its parent is there; None to print them.
    place
        The folder that printed files belong to, for a comment above each; empty for no comment.

    Raises
    ------
    OptionError
        If the folder cannot be made, or one of the files exists with other contents or cannot be
        written.
    """
    if folder is None:
        printed = [f"# {place}/{name}\n{text}" if place else text for name, text in files.items()]
        click.echo("\n".join(printed), nl=False)
        return
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise OptionError(f"--write {folder}: it cannot be made: {error.strerror}") from error
    for name, text in files.items():
        path = folder / name
        if path.exists() and path.read_bytes() != text.encode():
            raise OptionError(
                f"{path} exists and has other contents: move it away, or choose another folder"
            )
    for name, text in files.items():
        try:
            (folder / name).write_text(text, encoding="utf-8")
        except OSError as error:
            raise OptionError(f"{folder / name} cannot be written: {error.strerror}") from error
        say(f"wrote {folder / name}")


def _pod(image: str | None, claim: str | None, cpus: int | None, memory: str | None) -> Pod:
    """Return what a job needs of Kubernetes; options that are None keep their defaults."""
    pod = Pod()
    if memory is not None and not MEMORY_SIZE.fullmatch(memory):
        raise OptionError(f"--memory {memory!r}; expected a size as Kubernetes writes it: 4Gi")
    return Pod(image or pod.image, _parse_claim(claim), cpus or pod.cpus, memory or pod.memory)


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
