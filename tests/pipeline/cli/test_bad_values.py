"""Bad values of every kind end in one line and code 2, and nothing is written."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from click.testing import Result

from fcdcc.pipeline import JobConfig, errors, run
from fcdcc.pipeline.errors import BadValueError, OptionError
from support.jobs import fcdcc
from support.small import SHAPE, Files

THREADS = ("--threads", "--dashboard-address", "127.0.0.1:0")


def check_refused(result: Result, *words: str) -> None:
    assert result.exit_code == 2, result.output
    assert len(result.output.strip().splitlines()) == 1, result.output
    assert len(result.output) < 2000
    for word in words:
        assert word in result.output


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder in which nothing but the input may be when the test ends."""
    place = tmp_path / "here"
    place.mkdir()
    yield place
    left = {path.name for path in place.iterdir()}
    assert left <= {"job.toml", "images.zarr", "pipe"}, left


BAD_OPTIONS: dict[str, tuple[str, str]] = {
    "n": ("10" * 3000, "4300 digits"),
    "batch": (str(10**30), "--batch|batch"),
    "tolerate": ("-5", "tolerate"),
    "workers": (str(10**9), "4096"),
    "limit": (str(2**64), "limit"),
    "torch_threads": (str(10**9), "1024"),
    "threads_per_worker": (str(10**9), "1024"),
    "in_flight": (str(10**18), "in_flight"),
    "band": (str(10**20), "band"),
    "memory": ('"1e400"', "size in bytes"),
    "mean": ("[1e999]", "finite"),
    "std": ("[0.0]", "above 0"),
    "store": ('"top:99999999999999999999"', "top:K"),
    "dashboard_address": ('":99999999"', "65535"),
    "scheduler": ('"tcp://a:b:c"', "tcp://a:b:c"),
    "classes": ('"/dev/zero"', "not a regular file"),
    "plan": ('"/dev/zero"', "not a regular file"),
    "model": ('"/dev/zero"', "not a regular file"),
    "tls_ca_file": ('"/dev/zero"\ntls_cert = "x"\ntls_key = "x"\nscheduler = "tls://h:1"', "zero"),
    "json": ('"/nonexistent/x/y.json"', "cannot be written"),
    "input_array": ('"../../etc"', "etc"),
    "output": ('"a\\u0000b"', "zero byte"),
    "input": ('"a\\u0000b"', "zero byte"),
}


@pytest.mark.parametrize("option", BAD_OPTIONS)
def test_a_bad_value_in_a_job_file(files: Files, folder: Path, option: str) -> None:
    value, word = BAD_OPTIONS[option]
    job = {
        "model": json.dumps(str(files.model)),
        "input": json.dumps(str(files.images)),
        "output": '"out.zarr"',
        "progress": "false",
        option: value,
    }
    (folder / "job.toml").write_text("".join(f"{name} = {text}\n" for name, text in job.items()))
    result = fcdcc("run", "--config", folder / "job.toml", *THREADS)
    check_refused(result)
    assert any(part in result.output for part in word.split("|")), result.output


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--batch", 10**30), ("--limit", "9" * 5000), ("--in-flight", 10**18), ("--band", 10**18),
        ("--workers", 10**9), ("--torch-threads", 10**9), ("--threads-per-worker", 10**9),
        ("--memory", "1e400"), ("--memory", "9" * 5000), ("--dashboard-address", "a:b:c"),
    ],
)  # fmt: skip
def test_a_bad_value_on_the_command_line(
    files: Files, folder: Path, option: str, value: object
) -> None:
    output = folder / "out.zarr"
    result = fcdcc("run", files.model, files.images, output, *THREADS, option, value)
    assert result.exit_code == 2
    assert option in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    "command",
    [
        ("ingest", "FOLDER", "OUT", "--size", "999999x999999"),
        ("ingest", "FOLDER", "OUT", "--resize", 10**30),
        ("ingest", "FOLDER", "OUT", "--max-pixels", 10**30),
        ("ingest", "FOLDER", "OUT", "--threads", 10**9),
        ("codes", "--n", 10**30, "--delta", 2),
        ("codes", "--n", 4, "--delta", 10**30),
        ("codes", "--n", 4, "--delta", 2, "--json", "a\0b"),
        ("schedule", "JOB", "--cron", "*/99999999999999999999 * * * *"),
        ("schedule", "JOB", "--cron", f"{'9' * 5000} * * * *"),
        ("schedule", "JOB", "--cron", "* * * * *", "--runs", 10**30),
        ("schedule", "/dev/zero", "--cron", "* * * * *"),
        ("demo", "--stall", 10**30),
        ("status", "a\0b"),
        ("verify", "a\0b"),
        ("report", "a\0b"),
        ("report", "/dev/zero"),
        ("plan", "/dev/zero", "IMAGES"),
        ("plan", "MODEL", "/dev/zero"),
        ("plan", "MODEL", "file:///dev/zero"),
        ("plan", "MODEL", "http://[::1/images.zarr"),
        ("plan", "MODEL", "~nobody-of-this-name/images.zarr"),
    ],
    ids=lambda command: " ".join(str(word)[:20] for word in command).replace("\0", "0"),
)
def test_bad_values_of_other_commands(
    files: Files, tmp_path: Path, command: tuple[object, ...]
) -> None:
    (tmp_path / "job.toml").write_text(
        f'model = "{files.model}"\ninput = "{files.images}"\noutput = "out.zarr"\n'
    )
    (tmp_path / "pictures").mkdir()
    names = {
        "FOLDER": tmp_path / "pictures", "OUT": tmp_path / "out.zarr", "MODEL": files.model,
        "JOB": tmp_path / "job.toml", "IMAGES": files.images,
    }  # fmt: skip
    before = sorted(tmp_path.rglob("*"))
    result = fcdcc(*(names.get(str(word), word) for word in command))
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    assert len(result.stderr.splitlines()) == 1 or "Usage:" in result.stderr
    assert sorted(tmp_path.rglob("*")) == before


@pytest.fixture
def images(folder: Path) -> Path:
    """Eight images whose metadata may be changed."""
    group = zarr.create_group(folder / "images.zarr")
    group.create_array(
        "image", data=np.zeros((8, *SHAPE), np.uint8), chunks=(4, *SHAPE),
        dimension_names=list("ncyx"),
    )  # fmt: skip
    return folder / "images.zarr"


def chunks_of(*shape: int) -> dict[str, Any]:
    return {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": shape}}}


BAD_METADATA: dict[str, Mapping[str, Any]] = {
    "10^15 images": {"shape": [10**15, *SHAPE]},
    "10^30 images": {"shape": [10**30, *SHAPE]},
    "-8 images": {"shape": [-8, *SHAPE]},
    "10^12 rows": {"shape": [8, 3, 10**12, 10**12]},
    "chunks of 10^12 bytes": chunks_of(10**9, *SHAPE),
    "chunks of nothing": chunks_of(0, *SHAPE),
    "a codec of pickles": {"codecs": [{"name": "numcodecs.pickle", "configuration": {}}]},
    "no codecs": {"codecs": []},
    "an axis twice": {"dimension_names": ["n", "n", "y", "x"]},
    "texts": {"data_type": "string"},
    "a fill value that is infinite": {"fill_value": 1e400},
    "chunks outside": {
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/../"}}
    },
}


@pytest.mark.parametrize("what", BAD_METADATA)
def test_absurd_metadata_of_images(files: Files, images: Path, what: str) -> None:
    file = images / "image" / "zarr.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | BAD_METADATA[what]))
    output = images.with_name("out.zarr")
    result = fcdcc("run", files.model, images, output, "--n", 3, "--tolerate", 1, *THREADS)
    check_refused(result)


@pytest.mark.parametrize("name", ["zarr.json", "image/zarr.json"])
@pytest.mark.parametrize("what", ["zero", "pipe", "sparse", "nested"])
def test_metadata_that_never_end(files: Files, images: Path, name: str, what: str) -> None:
    file = images / name
    file.unlink()
    if what == "zero":
        file.symlink_to("/dev/zero")
    elif what == "pipe":
        os.mkfifo(file)
    elif what == "sparse":
        with file.open("wb") as stream:
            stream.truncate(1 << 40)
    else:
        file.write_text("[" * 10**6)
    check_refused(fcdcc("run", files.model, images, images.with_name("out.zarr"), *THREADS))


@pytest.mark.parametrize("what", ["model", "plan", "config", "classes"])
def test_a_pipe_that_nobody_writes_to_is_not_waited_for(
    files: Files, folder: Path, what: str
) -> None:
    os.mkfifo(folder / "pipe")
    model = folder / "pipe" if what == "model" else files.model
    options = [] if what == "model" else [f"--{what}", folder / "pipe"]
    result = fcdcc("run", model, files.images, folder / "out.zarr", *options, *THREADS)
    check_refused(result, "not a regular file")


def test_files_of_an_impossible_size_are_not_read(files: Files, tmp_path: Path) -> None:
    for name in ("model.pt2", "plan.json", "job.toml", "classes.txt"):
        with (tmp_path / name).open("wb") as stream:
            stream.truncate(1 << 42)
    output = tmp_path / "out.zarr"
    ours = [files.model, files.images, output]
    check_refused(fcdcc("run", tmp_path / "model.pt2", *ours[1:]), "bytes")
    check_refused(fcdcc("run", *ours, "--plan", tmp_path / "plan.json"), "bytes")
    check_refused(fcdcc("run", *ours, "--config", tmp_path / "job.toml"), "bytes")
    check_refused(fcdcc("run", *ours, "--classes", tmp_path / "classes.txt", *THREADS), "bytes")
    assert not output.exists()


@pytest.mark.parametrize("error", errors.BAD_VALUE_ERRORS)
def test_what_no_check_has_refused_is_refused_by_the_outermost_guard(
    files: Files, folder: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error("far too large\nby far")

    monkeypatch.setattr("fcdcc.pipeline.runtime.job_plan.choose_plan", fail)
    output = folder / "out.zarr"
    check_refused(
        fcdcc("run", files.model, files.images, output, *THREADS),
        f"{error.__name__}: far too large by far",
    )
    config = JobConfig(model=str(files.model), input=str(files.images), output=str(output))
    with pytest.raises(BadValueError, match=error.__name__):
        run(config)


@pytest.mark.cluster
def test_errors_after_the_first_write_are_no_bad_input(
    files: Files, scheduler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("fcdcc.pipeline.runtime.job.forecast_of_run", fail)
    output = tmp_path / "out.zarr"
    result = fcdcc("run", files.model, files.images, output, "--scheduler", scheduler)
    assert result.exit_code == 1
    assert isinstance(result.exception, ZeroDivisionError)
    assert any("continues it" in note for note in result.exception.__notes__)
    monkeypatch.undo()
    result = fcdcc("run", files.model, files.images, output, "--scheduler", scheduler)
    assert result.exit_code == 0, result.output


def test_python_is_told_as_well() -> None:
    for options in ({"batch": 10**30}, {"memory": "1e400"}, {"band": 1 << 20_000}):
        with pytest.raises(OptionError, match=next(iter(options))) as caught:
            JobConfig.of(model="m", input="i", output="o", **options)
        assert len(str(caught.value)) < 300


@pytest.mark.cluster
def test_a_lock_file_that_becomes_a_folder_does_not_undo_a_finished_job(
    files: Files, scheduler: str, tmp_path: Path
) -> None:
    output = tmp_path / "out.zarr"
    (tmp_path / ".out.zarr.lock.json").mkdir()
    result = fcdcc("run", files.model, files.images, output, "--scheduler", scheduler)
    assert result.exit_code == 0, result.output
    shutil.rmtree(tmp_path / ".out.zarr.lock.json")
    (tmp_path / ".out.zarr.lock").unlink(missing_ok=True)
    (tmp_path / ".out.zarr.lock").mkdir()
    check_refused(
        fcdcc("run", files.model, files.images, output, "--scheduler", scheduler), "locked"
    )
