"""Jobs at given times: cron's own rules, units that their readers understand, clean ends."""

from __future__ import annotations

import datetime as dt
import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.interval import IntervalTrigger
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fcdcc.coding import __version__
from fcdcc.pipeline.cli import main
from fcdcc.pipeline.cli.scheduling.cron import (
    WEEKDAYS,
    CronTimes,
    kubernetes_schedule,
    parse_cron,
)
from fcdcc.pipeline.cli.scheduling.foreground import cron_trigger, run_at_times
from fcdcc.pipeline.cli.scheduling.unit_files import (
    ScheduledJob,
    calendar_lines,
    cron_unit,
    systemd_units,
)
from fcdcc.pipeline.errors import OptionError
from fcdcc.storage.locking import STALE_SECONDS

START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def matches(fields: list[str], when: dt.datetime) -> bool:
    """Cron's rules (crontab(5)) for plain numbers, lists and stars, said another way."""

    def in_field(text: str, value: int) -> bool:
        return text == "*" or value in map(int, text.split(","))

    weekday = (when.weekday() + 1) % 7
    day = in_field(fields[2], when.day)
    if "*" in (fields[2], fields[4]):
        right_day = day and in_field(fields[4], weekday)
    else:
        right_day = day or in_field(fields[4], weekday)
    return (
        in_field(fields[0], when.minute)
        and in_field(fields[1], when.hour)
        and in_field(fields[3], when.month)
        and right_day
    )


def field(low: int, high: int) -> st.SearchStrategy[str]:
    lists = st.lists(st.integers(low, high), min_size=1, max_size=3)
    return st.one_of(st.just("*"), lists.map(lambda numbers: ",".join(map(str, numbers))))


@given(st.tuples(field(0, 59), field(0, 23), field(1, 28), field(1, 12), field(0, 6)))
def test_the_times_are_those_of_cron(fields: tuple[str, ...]) -> None:
    trigger = cron_trigger(parse_cron(" ".join(fields)), "UTC")
    now = START
    for _ in range(3):
        fires = trigger.get_next_fire_time(None, now)
        assert fires is not None
        assert matches([*fields], fires)
        # No earlier day would have done, nor an earlier minute of that day.
        between = (fires - dt.timedelta(minutes=minutes) for minutes in range(1, 1500))
        assert not any(matches([*fields], when) for when in between if when >= now)
        now = fires + dt.timedelta(minutes=1)


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("@daily", "0 0 * * *"),
        ("@weekly", "0 0 * * 7"),
        ("*/15 9-17/4 * JAN-mar Mon-Fri", "0,15,30,45 9,13,17 * 1,2,3 1,2,3,4,5"),
        ("50/5 * * * *", "50,55 * * * *"),
        ("0 0 * * 5-7", "0 0 * * 0,5,6"),
    ],
)
def test_short_forms(text: str, same: str) -> None:
    def times(cron: CronTimes) -> tuple[object, ...]:
        return (cron.minutes, cron.hours, cron.months, cron.days)

    assert times(parse_cron(text)) == times(parse_cron(same))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0 2 * *", "4 fields"),
        ("60 2 * * *", "minute is '60'; expected 0 to 59"),
        ("0 2 * * mo", "weekday is 'mo'.*sun, mon"),
        ("0 2 0 * *", "day of the month is '0'"),
        ("0 */0 * * *", "hour"),
        ("0 5-2 * * *", "hour is '5-2'"),
        ("0 2,, * * *", "hour"),
        ("0 2 31 2,4 *", "never occurs"),
        ("0 2 * * * rm", "6 fields"),
        ("0 ² * * *", "hour"),
    ],
)
def test_what_is_no_time_is_refused(text: str, words: str) -> None:
    with pytest.raises(OptionError, match=words):
        parse_cron(text)


def kubernetes_days(cron: str) -> set[tuple[int, int]]:
    """Return days of the month and weekdays that match, by the rules of robfig/cron 3.

    Kubernetes reads cron expressions with it. Weekdays are 0 to 6. A day matches if both fields
    match where one of them has a ``*`` without a step above 1, otherwise if either does.
    """
    starred = False
    sets: list[set[int]] = []
    for text, lowest, highest in zip(cron.split()[2::2], (1, 0), (31, 6), strict=True):
        values: set[int] = set()
        for part in text.split(","):
            span, _, step = part.partition("/")
            first, dash, last = span.partition("-")
            low = lowest if span == "*" else int(first)
            high = int(last) if dash else highest if step or span == "*" else low
            starred |= span == "*" and int(step or 1) == 1
            assert lowest <= low <= high <= highest, f"Kubernetes refuses {part!r} in {cron!r}"
            values.update(range(low, high + 1, int(step or 1)))
        sets.append(values)
    rule = all if starred else any
    return {
        (day, weekday)
        for day in range(1, 32)
        for weekday in range(7)
        if rule((day in sets[0], weekday in sets[1]))
    }


@st.composite
def day_field(draw: st.DrawFn, low: int, high: int) -> str:
    """Fields of days in all the forms that crontab(5) has."""
    parts = []
    for _ in range(draw(st.integers(1, 2))):
        first = draw(st.integers(low, high))
        last = draw(st.integers(first, high))
        span = draw(st.sampled_from(["*", f"{first}", f"{first}-{last}"]))
        parts.append(span + draw(st.sampled_from(["", "/1", "/2"])))
    return ",".join(parts)


@given(day_field(1, 31), day_field(0, 7))
def test_kubernetes_takes_the_days_of_cron_or_the_times_are_refused(day: str, weekday: str) -> None:
    times = parse_cron(f"0 2 {day} * {weekday}")
    expected = {
        (number, name)
        for option in times.days
        for number in option.days
        for name in option.weekdays
    }
    try:
        written = kubernetes_schedule(times)
    except OptionError:
        (both,) = times.days  # days that match both fields, which Kubernetes cannot be told
        assert len(both.days) < 31
        assert len(both.weekdays) < 7
    else:
        assert kubernetes_days(written) == expected


@pytest.mark.parametrize(
    ("cron", "written"),
    [
        ("0 2 * * 7", "0 2 * * 0"),
        ("0 2 * * 5-7", "0 2 * * 0,5,6"),
        ("*/20 1-5 * JAN-mar Mon-Fri", "*/20 1-5 * JAN-mar 1-5"),
        ("0 2 * * sat,sun", "0 2 * * 0,6"),
        ("0 2 1,15 * mon", "0 2 1,15 * 1"),
        ("0 2 */2 * 0-6", "0 2 */2 * *"),  # Kubernetes would take every day
        ("0 2 5,* * mon", "0 2 * * *"),  # Kubernetes would take Mondays
        ("@weekly", "0 0 * * 0"),
    ],
)
def test_times_for_kubernetes(cron: str, written: str) -> None:
    assert kubernetes_schedule(parse_cron(cron)) == written


@pytest.mark.parametrize("cron", ["0 2 */2 * 1", "0 2 13 * */2"])
def test_days_that_kubernetes_would_take_otherwise_are_refused(tmp_path: Path, cron: str) -> None:
    arguments = (job_file(tmp_path), "--cron", cron, "--claim", "images:/data")
    result = schedule(*arguments, "--print", "kubernetes")
    assert result.exit_code == 2
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert cron in line
    assert "match both" in line
    assert "give only one of the two, or use --print systemd" in line


def unit(cron: str, job: str = "/jobs/night.toml", timezone: str | None = None) -> ScheduledJob:
    images = str(Path(job).with_suffix(".zarr"))
    return ScheduledJob(Path(job), parse_cron(cron), timezone, ["fcdcc"], images)


@pytest.mark.parametrize(
    ("cron", "lines"),
    [
        ("0 2 * * *", ["*-*-* 02:00:00"]),
        ("30 4 1 */6 *", ["*-01,07-01 04:30:00"]),
        ("0 0 * * 0", ["Sun *-*-* 00:00:00"]),
        ("5 * 13 * 5", ["*-*-13 *:05:00", "Fri *-*-* *:05:00"]),
    ],
)
def test_calendar_events_of_systemd(cron: str, lines: list[str]) -> None:
    assert calendar_lines(unit(cron)) == lines


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
@pytest.mark.parametrize("cron", ["0 2 * * *", "*/20 1-5 1,15 * mon", "0 0 29 2 *"])
def test_systemd_means_the_same_times(cron: str) -> None:
    trigger = cron_trigger(parse_cron(cron), "UTC")
    earliest: list[dt.datetime] = []
    for line in calendar_lines(unit(cron, timezone="UTC")):
        said = subprocess.run(
            ["systemd-analyze", "calendar", "--base-time=2026-01-01 00:00:00 UTC", line],
            capture_output=True, text=True, check=True, env={"TZ": "UTC", "PATH": "/usr/bin:/bin"},
        ).stdout  # fmt: skip
        (when,) = [row for row in said.splitlines() if "Next elapse" in row]
        day, clock = when.split()[3:5]
        earliest.append(dt.datetime.fromisoformat(f"{day}T{clock}+00:00"))
    assert min(earliest) == trigger.get_next_fire_time(None, START + dt.timedelta(seconds=1))


ODD = """/jobs/50% "off" $HOME 'x' \\n.toml"""


def test_odd_paths_are_quoted() -> None:
    *_, line = cron_unit(unit("0 2 * * *", ODD)).splitlines()
    assert line.startswith("0 2 * * * ")
    unescaped = line.removeprefix("0 2 * * * ").replace(r"\%", "%")
    assert line.count("%") == line.count(r"\%")
    assert shlex.split(unescaped)[:4] == unit("0 2 * * *", ODD).command
    service, _ = systemd_units(unit("0 2 * * *", ODD)).values()
    assert r"""/jobs/50%% \"off\" $$HOME 'x' \\n.toml""" in service
    with pytest.raises(OptionError, match="line breaks"):
        unit("0 2 * * *", "/jobs/a\nExecStart=evil.toml")


def job_file(folder: Path) -> Path:
    path = folder / "Nightly job.toml"
    path.write_text('# γ: may be lost\nmodel = "m.pt2"\ninput = "in.zarr"\noutput = "out.zarr"\n')
    return path


def schedule(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["schedule", *map(str, arguments)])


def test_kubernetes(tmp_path: Path) -> None:
    file = job_file(tmp_path)
    result = schedule(
        file, "--cron", "0 2 * * *", "--print", "kubernetes", "--timezone", "Europe/Zurich",
        "--claim", "images:/data", "--cpus", "4", "--memory", "8Gi",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "{" not in result.stdout.replace("emptyDir: {}", "")  # as people write YAML
    assert '  job.toml: |\n    model = "m.pt2"\n' in result.stdout
    config, job = yaml.safe_load_all(result.stdout)
    assert tomllib.loads(config["data"]["job.toml"]) == tomllib.loads(file.read_text())
    assert job["metadata"]["name"] == config["metadata"]["name"] == "fcdcc-nightly-job"
    spec = job["spec"]
    assert (spec["schedule"], spec["timeZone"]) == ("0 2 * * *", "Europe/Zurich")
    assert spec["concurrencyPolicy"] == "Forbid"
    attempts = spec["jobTemplate"]["spec"]
    pod = attempts["template"]["spec"]
    (container,) = pod["containers"]
    assert container["command"] == ["fcdcc", "run", "--config", "/data/Nightly job.toml"]
    assert container["resources"]["limits"] == {"cpu": 4, "memory": "8Gi"}
    places = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert places["data"] == "/data"
    assert places["job"] == "/data/Nightly job.toml"
    assert {"name": "XDG_CACHE_HOME", "value": places["cache"]} in container["env"]
    assert places.keys() == {volume["name"] for volume in pod["volumes"]}
    # The user of examples/deploy/Dockerfile, who may write to the volume of the claim.
    assert pod["securityContext"] == {"runAsUser": 1000, "runAsNonRoot": True, "fsGroup": 1000}


def test_the_job_file_in_kubernetes_has_the_options_without_the_comments(tmp_path: Path) -> None:
    file = tmp_path / "job.toml"
    words = ("s3://b/γ.pt2", "s3://b/in", "s3://b/out", "--mean", "0.5,1e-7,0.1", "--n", "6")
    template = CliRunner().invoke(main, ["run", *words, "--tolerate", "2", "--print-config"])
    more = 'input-array = """\n# "no" comment"""  # a comment\nstd = [inf, 1, 0.1]\n'
    file.write_text(template.stdout + more)
    result = schedule(file, "--cron", "0 2 * * *", "--print", "kubernetes")
    config, _ = yaml.safe_load_all(result.stdout)
    text = config["data"]["job.toml"]
    assert tomllib.loads(text) == tomllib.loads(file.read_text())
    assert len(text.splitlines()) == len(tomllib.loads(text))
    assert "a comment" not in text


@pytest.mark.parametrize("write", [False, True])
@pytest.mark.parametrize(
    ("key", "url", "left"),
    [
        ("input", "s3://me:secret@b/in.zarr", "s3://b/in.zarr"),
        ("output", "https://host/out.zarr?token=secret", "https://host/out.zarr"),
        ("model", "zip://m.pt2::https://me:secret@host/a.zip", "zip://m.pt2::https://host/a.zip"),
        ("json", "s3://me:secret@b/summary.json", "s3://b/summary.json"),
    ],
)
def test_credentials_are_not_written_into_a_config_map(
    tmp_path: Path, key: str, url: str, left: str, write: bool
) -> None:
    file, folder = tmp_path / "job.toml", tmp_path / "units"
    options = {"model": "s3://b/m.pt2", "input": "s3://b/in", "output": "s3://b/out", key: url}
    file.write_text("".join(f'{name} = "{value}"\n' for name, value in options.items()))
    more = ["--write", folder] if write else []
    result = schedule(file, "--cron", "0 2 * * *", "--print", "kubernetes", *more)
    assert result.exit_code == 2
    assert "secret" not in result.output
    (line,) = result.stderr.splitlines()
    assert f"{key} = {left!r}" in line
    assert "credentials" in line
    assert "by the environment" in line
    assert not folder.exists()


@pytest.mark.parametrize(
    ("address", "reachable"),
    [
        ("tcp://127.0.0.1:8786", False),
        ("localhost:8786", False),
        ("tls://[::1]:8786", False),
        ("tcp://scheduler.dask:8786", True),
        ("tcp://10.0.0.7:8786", True),
    ],
)
def test_a_scheduler_of_this_machine_alone_is_refused_for_a_pod(
    tmp_path: Path, address: str, reachable: bool
) -> None:
    file = tmp_path / "job.toml"
    options = {"model": "s3://b/m.pt2", "input": "s3://b/in", "output": "s3://b/out"}
    options["scheduler"] = address
    file.write_text("".join(f'{name} = "{value}"\n' for name, value in options.items()))
    result = schedule(file, "--cron", "0 2 * * *", "--print", "kubernetes")
    assert result.exit_code == (0 if reachable else 2), result.output
    if not reachable:
        (line,) = result.stderr.splitlines()
        assert f"scheduler = {address!r} is an address of this machine alone" in line


def test_kubernetes_takes_credentials_from_a_secret_once_its_lines_are_no_comment(
    tmp_path: Path,
) -> None:
    arguments = ("--cron", "0 2 * * *", "--print", "kubernetes", "--claim", "images:/data")
    shown = schedule(job_file(tmp_path), *arguments).stdout
    secret = [{"secretRef": {"name": "fcdcc-nightly-job"}}]
    create = "# kubectl create secret generic fcdcc-nightly-job --from-env-file=FILE\n"
    assert create in shown
    *_, job = yaml.safe_load_all(uncommented(shown, "envFrom:"))
    (container,) = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    assert container["envFrom"] == secret
    lines = uncommented(shown, "initContainers:").splitlines()
    first = next(number for number, line in enumerate(lines) if "initContainers:" in line)
    *_, job = yaml.safe_load_all(uncommented("\n".join(lines), "envFrom:", first))
    (before,) = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["initContainers"]
    assert before["envFrom"] == secret


def test_systemd_takes_credentials_from_a_file_once_its_line_is_no_comment(tmp_path: Path) -> None:
    shown = schedule(job_file(tmp_path), "--cron", "0 2 * * *", "--print", "systemd").stdout
    assert "\n# EnvironmentFile=/etc/fcdcc-nightly-job.env\n" in shown
    assert "AWS_ACCESS_KEY_ID" in shown


def cron_line(folder: Path, code: int) -> str:
    """Return the command that cron gives to sh, of a job that ends with a code."""
    program = folder / "program.sh"
    program.write_text(f"echo said by the run: ${{KEY-}}.\nexit {code}\n")
    job = folder / "it's 5% off.toml"
    written = ScheduledJob(job, parse_cron("0 2 * * *"), None, ["sh", str(program)], "in.zarr")
    *_, line = cron_unit(written).splitlines()
    return line.removeprefix("0 2 * * * ").replace(r"\%", "%")


@pytest.mark.parametrize(("code", "mailed"), [(0, False), (3, False), (1, True), (4, True)])
def test_cron_mails_failures_and_nothing_else(tmp_path: Path, code: int, mailed: bool) -> None:
    """Cron mails what a command prints, whatever its exit code is."""
    command = ["/bin/sh", "-c", cron_line(tmp_path, code)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    log = tmp_path / "it's 5% off.log"
    assert log.read_text() == "said by the run: .\n"
    assert done.stderr == ""
    assert (f"failed with code {code}" in done.stdout) is mailed
    assert (str(log) in done.stdout) is mailed
    assert done.returncode == (code if mailed else 0)


def test_cron_takes_credentials_from_a_file_as_its_comment_says(tmp_path: Path) -> None:
    shown = schedule(job_file(tmp_path), "--cron", "0 2 * * *", "--print", "cron").stdout
    assert "export AWS_ACCESS_KEY_ID=" in shown
    assert "# . /PATH/OF/FILE &&\n" in shown
    keys = tmp_path / "keys"
    keys.write_text("export KEY=abc\n")
    command = ["/bin/sh", "-c", f". {keys} && {cron_line(tmp_path, 4)}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (tmp_path / "it's 5% off.log").read_text() == "said by the run: abc.\n"
    assert "failed with code 4" in done.stdout


def test_attempts_of_a_pod_outlast_the_lock_of_one_that_has_died(tmp_path: Path) -> None:
    result = schedule(
        job_file(tmp_path), "--cron", "0 2 * * *", "--print", "kubernetes", "--claim", "a:/data"
    )
    _, job = yaml.safe_load_all(result.stdout)
    attempts = job["spec"]["jobTemplate"]["spec"]
    waits = [min(10 * 2**attempt, 360) for attempt in range(attempts["backoffLimit"])]
    assert sum(waits) > STALE_SECONDS
    (rule,) = attempts["podFailurePolicy"]["rules"]
    assert (rule["action"], rule["onExitCodes"]["values"]) == ("FailJob", [2])


@pytest.mark.parametrize(
    ("text", "claim", "words"),
    [
        ('model = "m.pt2"\ninput = "in"\noutput = "out"\n', None, "give --claim NAME:/PATH"),
        ('model = "/home/me/m.pt2"\ninput = "in"\noutput = "out"\n', "a:/data", "below /data"),
        ('model = "../m.pt2"\ninput = "in"\noutput = "out"\n', "a:/data", "below /data"),
    ],
)
def test_files_that_a_container_does_not_have_are_named(
    tmp_path: Path, text: str, claim: str | None, words: str
) -> None:
    file = tmp_path / "job.toml"
    file.write_text(text)
    arguments = [file, "--cron", "0 2 * * *", "--print", "kubernetes"]
    result = schedule(*arguments, *(["--claim", claim] if claim else []))
    assert result.exit_code == 2
    assert words in result.stderr
    assert "model = " in result.stderr


def test_files_of_a_container_are_where_its_job_file_says(tmp_path: Path) -> None:
    file = tmp_path / "job.toml"
    file.write_text('model = "/data/m.pt2"\ninput = "s3://bucket/in"\noutput = "s3://bucket/out"\n')
    arguments = (file, "--cron", "0 2 * * *", "--print", "kubernetes")
    assert schedule(*arguments, "--claim", "a:/data").exit_code == 0
    file.write_text('model = "s3://b/m.pt2"\ninput = "s3://b/in"\noutput = "s3://b/out"\n')
    result = schedule(*arguments)
    assert result.exit_code == 0, result.output
    _, job = yaml.safe_load_all(result.stdout)
    (container,) = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    assert container["command"][-1] == "/etc/fcdcc/job.toml"


@pytest.mark.parametrize("target", ["systemd", "cron", "kubernetes"])
def test_units_are_written_to_a_folder_and_nothing_is_overwritten(
    tmp_path: Path, target: str
) -> None:
    folder = tmp_path / "units"  # is made
    more = ["--claim", "images:/data"] if target == "kubernetes" else []
    arguments = (
        job_file(tmp_path), "--cron", "0 2 * * *", "--print", target, "--write", folder, *more,
    )  # fmt: skip
    for _ in range(2):  # the same again changes nothing
        result = schedule(*arguments)
        assert result.exit_code == 0, result.output
        assert result.stdout == ""
    names = {
        "systemd": {"fcdcc-nightly-job.service", "fcdcc-nightly-job.timer"},
        "cron": {"fcdcc-nightly-job.cron"},
        "kubernetes": {"fcdcc-nightly-job.yaml"},
    }[target]
    assert {path.name for path in folder.iterdir()} == names
    for name in names:
        assert f"wrote {folder / name}" in result.stderr
        (folder / name).write_text("mine")
    result = schedule(*arguments)
    assert result.exit_code == 2
    assert "exists and has other contents" in result.stderr
    assert {path.read_text() for path in folder.iterdir()} == {"mine"}


@pytest.mark.parametrize("target", ["systemd", "cron", "kubernetes"])
def test_units_say_that_pictures_come_first(tmp_path: Path, target: str) -> None:
    more = ["--claim", "images:/data"] if target == "kubernetes" else []
    result = schedule(job_file(tmp_path), "--cron", "0 2 * * *", "--print", target, *more)
    assert result.stdout.count("# This starts fcdcc run alone: for a folder of pictures, ") == 1


def shown_ingest(job: Path, target: str) -> list[str]:
    """Return the words that start ``fcdcc ingest`` in a unit, once its comment is none."""
    more = ["--claim", "images:/data"] if target == "kubernetes" else []
    result = schedule(job, "--cron", "0 2 * * *", "--print", target, *more)
    assert result.exit_code == 0, result.output
    if target == "kubernetes":
        words: list[str] = with_init_container(result.stdout)["initContainers"][0]["command"]
        return words
    if target == "systemd":
        (line,) = re.findall(r"^# ExecStartPre=(.*)", result.stdout, re.MULTILINE)
        return [word.replace("%%", "%").replace("$$", "$") for word in shlex.split(line)]
    words = shlex.split(result.stdout.splitlines()[-2].replace(r"\%", "%"))
    return words[words.index("{") + 1 : words.index("&&")]


def with_init_container(unit: str) -> Any:
    """Return the description of the pod with the commented init container."""
    _, job = yaml.safe_load_all(uncommented(unit, "initContainers:"))
    return job["spec"]["jobTemplate"]["spec"]["template"]["spec"]


def uncommented(unit: str, start: str, first: int = 0) -> str:
    """Return a unit in which the commented lines from one on are none; not looked for before."""
    lines = unit.splitlines()
    number = next(
        number for number, line in enumerate(lines)
        if number >= first and line.lstrip() == f"# {start}"
    )  # fmt: skip
    while lines[number].lstrip().startswith("#"):
        lines[number] = lines[number].replace("# ", "", 1)
        number += 1
    return "\n".join(lines)


def ingest_one_picture(folder: Path, images: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4)).save(folder / "a.png")
    result = CliRunner().invoke(main, ["ingest", str(folder), str(images)])
    assert result.exit_code == 0, result.output


def test_systemd_starts_ingest_first_once_its_line_is_no_comment(tmp_path: Path) -> None:
    file = job_file(tmp_path)
    shown = schedule(file, "--cron", "0 2 * * *", "--print", "systemd").stdout
    (start,) = re.findall(r"^ExecStart=(.*)", shown, re.MULTILINE)
    *program, _, _, _ = shlex.split(start)
    assert shown_ingest(file, "systemd") == [
        *program, "ingest", "FOLDER", str(tmp_path / "in.zarr")
    ]  # fmt: skip


def test_cron_starts_ingest_first_with_the_line_in_the_comment(tmp_path: Path) -> None:
    file = job_file(tmp_path)
    result = schedule(file, "--cron", "0 2 * * *", "--print", "cron")
    *_, both, line = result.stdout.splitlines()
    run, log = line.removeprefix("0 2 * * * ").split(" >> ")
    program = shlex.split(run)[:-3]
    ingest = shlex.join([*program, "ingest", "FOLDER", str(tmp_path / "in.zarr")])
    assert both == f"# 0 2 * * * {{ {ingest} && {run}; }} >> {log}"


def test_kubernetes_starts_ingest_first_once_its_lines_are_no_comment(tmp_path: Path) -> None:
    arguments = ("--cron", "0 2 * * *", "--print", "kubernetes", "--claim", "images:/data")
    pod = with_init_container(schedule(job_file(tmp_path), *arguments).stdout)
    (before,), (container,) = pod["initContainers"], pod["containers"]
    assert before["command"] == ["fcdcc", "ingest", "FOLDER", "/data/in.zarr"]
    assert before["image"] == container["image"]
    assert before["volumeMounts"] == container["volumeMounts"]


@pytest.mark.parametrize("target", ["systemd", "cron", "kubernetes"])
def test_units_name_the_folder_that_the_images_were_last_made_from(
    tmp_path: Path, target: str
) -> None:
    """The line in the comment can be used as it is, with any name that a folder may have."""
    job, images = job_file(tmp_path), tmp_path / "in.zarr"
    place = "/data" if target == "kubernetes" else str(tmp_path)
    for name in ("first", '100% of "it" for $me: it\'s #1 \\', "third " * 30):
        ingest_one_picture(tmp_path / name, images)
        ingest = ["ingest", f"{place}/{name}", f"{place}/in.zarr"]
        assert shown_ingest(job, target)[-3:] == ingest
    more = ["--claim", "images:/data"] if target == "kubernetes" else []
    unit = schedule(job, "--cron", "0 2 * * *", "--print", target, *more)
    assert "FOLDER" not in unit.stdout


def test_a_folder_that_the_container_does_not_have_is_not_named(tmp_path: Path) -> None:
    (tmp_path / "job").mkdir()
    job = job_file(tmp_path / "job")
    ingest_one_picture(tmp_path / "elsewhere", tmp_path / "job" / "in.zarr")
    assert shown_ingest(job, "kubernetes") == ["fcdcc", "ingest", "FOLDER", "/data/in.zarr"]
    assert shown_ingest(job, "systemd")[-2] == str(tmp_path / "elsewhere")


def test_units_do_not_show_the_credentials_of_a_url(tmp_path: Path) -> None:
    file = tmp_path / "job.toml"
    file.write_text(
        'model = "m.pt2"\ninput = "https://me:secret@host/in.zarr"\noutput = "out.zarr"\n'
    )
    for target in ("systemd", "cron"):
        shown = schedule(file, "--cron", "0 2 * * *", "--print", target).stdout
        assert "host/in.zarr" in shown
        assert "secret" not in shown


def test_units_say_whose_job_it_is_and_where_the_image_comes_from(tmp_path: Path) -> None:
    file = job_file(tmp_path)
    service = schedule(file, "--cron", "0 2 * * *", "--print", "systemd").stdout
    assert "Description=fcdcc run of Nightly job.toml\n" in service
    assert re.search(r"^# User=\w+", service, re.MULTILINE)
    arguments = (file, "--cron", "0 2 * * *", "--print", "kubernetes", "--claim", "images:/data")
    assert f"docker build -f examples/deploy/Dockerfile -t fcdcc:{__version__} ." in (
        schedule(*arguments).stdout
    )
    assert "docker build" not in schedule(*arguments, "--image", "registry/mine:1").stdout


def test_without_times_the_error_names_what_is_printed_instead_of_run() -> None:
    result = schedule("job.toml")
    assert result.exit_code == 2
    assert (
        "--cron is missing: give the times of the runs, as in --cron '0 2 * * *'" in result.stderr
    )
    assert "--print systemd, cron or kubernetes" in result.stderr


@pytest.mark.parametrize("arguments", [("net.pt2", "in.zarr", "out data.zarr"), ("net.pt2",)])
def test_arguments_of_run_are_refused_with_what_to_type(arguments: tuple[str, ...]) -> None:
    result = schedule(*arguments, "--cron", "0 2 * * *")
    assert result.exit_code == 2
    job = "net.pt2 in.zarr 'out data.zarr'" if len(arguments) == 3 else "MODEL INPUT OUTPUT"
    assert "fcdcc schedule takes one job file" in result.stderr
    assert f"fcdcc run {job} --print-config > job.toml" in result.stderr
    assert "fcdcc schedule job.toml --cron '0 2 * * *'" in result.stderr


def test_the_next_step_with_systemd_is_named(tmp_path: Path) -> None:
    arguments = (job_file(tmp_path), "--cron", "0 2 * * *", "--print", "systemd")
    step = "systemctl enable --now fcdcc-nightly-job.timer"
    assert f"# To start it at these times: {step}\n" in schedule(*arguments).stdout
    written = schedule(*arguments, "--write", tmp_path / "units")
    assert f"next, with both files in /etc/systemd/system: {step}\n" in written.stderr
    result = schedule(*arguments, "--write", tmp_path / "none" / "units")
    assert result.exit_code == 2
    assert f"--write {tmp_path / 'none' / 'units'}: it cannot be made" in result.stderr


def test_the_next_step_with_kubernetes_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "my units"
    result = schedule(
        job_file(tmp_path), "--cron", "0 2 * * *", "--print", "kubernetes", "--claim", "a:/data",
        "--write", folder,
    )  # fmt: skip
    step = shlex.join(["kubectl", "apply", "-f", str(folder / "fcdcc-nightly-job.yaml")])
    assert result.stderr.endswith(f"next: {step}\n")


def test_cron_takes_no_time_zone_that_it_would_ignore() -> None:
    with pytest.raises(OptionError, match="time zone of the machine"):
        cron_unit(unit("0 2 * * *", timezone="Europe/Zurich"))


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_accepts_what_is_written(tmp_path: Path) -> None:
    schedule(job_file(tmp_path), "--cron", "0 2 * * *", "--print", "systemd", "--write", tmp_path)
    paths = [str(path) for path in tmp_path.glob("fcdcc-nightly-job.*")]
    assert len(paths) == 2
    checked = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *paths],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    ours = [line for line in checked.stderr.splitlines() if "fcdcc-nightly-job" in line]
    assert ours == []


def test_what_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    file = job_file(tmp_path)
    assert schedule(file, "--cron", "0 2 * *").exit_code == 2
    assert schedule(file, "--cron", "0 2 * * *", "--timezone", "Mars/North").exit_code == 2
    assert schedule(tmp_path / "none.toml", "--cron", "0 2 * * *").exit_code == 2
    assert schedule(file, "--cron", "0 2 * * *", "--write", tmp_path).exit_code == 2
    result = schedule(file, "--cron", "0 2 * * *", "--print", "systemd", "--cpus", "2")
    assert result.exit_code == 2
    assert "--cpus is for --print kubernetes" in result.stderr
    file.write_text("n = 2\n")
    result = schedule(file, "--cron", "0 2 * * *")
    assert result.exit_code == 2
    assert "MODEL is needed" in result.stderr


def every(seconds: float) -> BaseTrigger:
    return IntervalTrigger(seconds=seconds)


def test_runs_follow_each_other_and_their_codes_are_told(tmp_path: Path) -> None:
    lines: list[str] = []
    command = [sys.executable, "-S", "-c", "import sys; sys.exit(4)"]
    codes = run_at_times(command, every(0.2), runs=2, report=lines.append)
    assert codes == [4, 4]
    assert lines.count("the run ended with code 4") == 2


@pytest.mark.parametrize(("runs", "follows"), [(1, False), (2, True)])
def test_a_next_run_is_told_only_if_there_is_one(runs: int, follows: bool) -> None:
    lines: list[str] = []
    run_at_times([sys.executable, "-S", "-c", ""], every(0.2), runs=runs, now=True,
                 report=lines.append)  # fmt: skip
    assert any("the next run is at" in line for line in lines) is follows


@pytest.mark.parametrize("now", [False, True])
def test_a_run_that_goes_on_is_not_joined_by_another(tmp_path: Path, now: bool) -> None:
    code = (
        "import pathlib, time; p = pathlib.Path(r'%s'); assert not p.exists(); p.touch(); "
        "time.sleep(1); p.unlink()" % (tmp_path / "running")
    )
    lines: list[str] = []
    codes = run_at_times(
        [sys.executable, "-S", "-c", code], every(0.2), runs=2, now=now, report=lines.append
    )
    assert codes == [0, 0]
    assert any("skipped" in line for line in lines)


def test_sigterm_ends_the_run_that_is_going_on(tmp_path: Path) -> None:
    child = (
        "import pathlib, signal, sys, time\n"
        "def end(*_):\n    pathlib.Path('ended').touch(); sys.exit(130)\n"
        "signal.signal(signal.SIGTERM, end)\npathlib.Path('begun').touch()\ntime.sleep(600)\n"
    )
    (tmp_path / "child.py").write_text(child)
    parent = (
        "import sys\n"
        "from fcdcc.pipeline.cli.process_exit import interruptible\n"
        "from fcdcc.pipeline.cli.scheduling.foreground import run_at_times\n"
        "from apscheduler.triggers.interval import IntervalTrigger\n"
        "with interruptible(60):\n"
        "    command = [sys.executable, 'child.py']\n"
        "    run_at_times(command, IntervalTrigger(hours=1), now=True, report=print)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", parent], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    try:
        while not (tmp_path / "begun").exists():
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (tmp_path / "ended").exists()
    assert "KeyboardInterrupt" in said


def test_weekdays_begin_with_sunday() -> None:
    assert WEEKDAYS[parse_cron("0 0 * * 1").days[0].weekdays[0]] == "mon"


def test_an_interrupted_schedule_says_that_no_more_runs_are_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fcdcc.pipeline.cli.scheduling.foreground.run_at_times", interrupted)
    result = schedule(job_file(tmp_path), "--cron", "0 2 * * *")
    assert result.exit_code == 130
    assert result.output == (
        "fcdcc: interrupted: no more runs are started; the same command starts the schedule again\n"
    )


def test_a_schedule_of_a_job_with_json_logs_prints_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def one_run(*_: object, report: Callable[[str], None], **__: object) -> None:
        thread = threading.Thread(target=report, args=["a run begins"])
        thread.start()
        thread.join()
        raise KeyboardInterrupt

    monkeypatch.setattr("fcdcc.pipeline.cli.scheduling.foreground.run_at_times", one_run)
    path = job_file(tmp_path)
    path.write_text(path.read_text("utf-8") + 'log-format = "json"\n', "utf-8")
    lines = [json.loads(x) for x in schedule(path, "--cron", "0 2 * * *").output.splitlines()]
    assert [(line["level"], line["message"].partition(":")[0]) for line in lines] == [
        ("info", "a run begins"), ("error", "interrupted"),
    ]  # fmt: skip
