"""Job files: read as options, wrong ones named with their line, flags win."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import zarr

from fcdcc.pipeline import JobConfig
from fcdcc.pipeline.cli.job_file import read_job_file
from fcdcc.pipeline.errors import OptionError
from support.jobs import fcdcc
from support.small import Files


def written(folder: Path, text: str) -> Path:
    (folder / "job.toml").write_text(text)
    return folder / "job.toml"


def test_options_and_paths_are_read(tmp_path: Path) -> None:
    file = read_job_file(
        written(
            tmp_path,
            'model = "net.pt2"\ninput = "s3://bucket/in.zarr"\noutput = "/data/out.zarr"\n'
            "n = 4\nin-flight = 2\ntorch_threads = 3\nmean = [0.5, 1]\nstd = 0.25\n"
            'json = "-"\nlog-level = "info"\n',
        )
    )
    assert file.job == {
        "model": str(tmp_path / "net.pt2"),
        "input": "s3://bucket/in.zarr",
        "output": "/data/out.zarr",
        "n": 4,
        "in_flight": 2,
        "torch_threads": 3,
        "mean": [0.5, 1],
        "std": 0.25,
    }
    assert file.command == {"json": "-", "log_level": "info"}


def test_n_and_tolerate_may_be_numbers_or_auto(tmp_path: Path) -> None:
    file = read_job_file(written(tmp_path, 'n = "auto"\ntolerate = 1\n'))
    assert file.job == {"n": "auto", "tolerate": 1}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('tolerate = "some"\n', "line 1: tolerate: it is 'some': input should be a valid integer"),
        ("n = 6\n\nbacth = 4\n", "line 3: bacth: there is no such option; is batch meant?"),
        ('# six\nn = "6"\n', "line 2: n: it is '6': input should be a valid integer"),
        ("n = true\n", "line 1: n: it is True"),
        ("batch = 0\n", "line 1: batch: it is 0: input should be greater than or equal to 1"),
        ('code = "morse"\n', "line 1: code: it is 'morse'"),
        ('store = "top"\n', "line 1: store: it is 'top': expected logits"),
        ("in_flight = 2\nin-flight = 2\n", "line 2: in-flight: it is the same option as in_flight"),
        ("[run]\nn = 2\n", "line 1: run: there is no such option"),
        ('log-level = "loud"\n', "line 1: log-level: it is 'loud'"),
        ('model = 5\nscale = "some"\n', "line 1: model: .*line 2: scale"),
        ("n = \n", "is not TOML: .*line 1"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(OptionError, match=words):
        read_job_file(written(tmp_path, text))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    result = fcdcc("run", "--config", tmp_path / "job.toml")
    assert result.exit_code == 2
    assert "job.toml cannot be read" in result.stderr


def test_what_is_in_neither_the_file_nor_the_flags_is_named(tmp_path: Path) -> None:
    file = written(tmp_path, 'model = "net.pt2"\n')
    result = fcdcc("run", "--config", file)
    assert result.exit_code == 2
    assert "INPUT is needed; OUTPUT is needed" in result.stderr
    assert fcdcc("run", "one.pt2").exit_code == 2


def test_the_job_file_of_the_documentation_is_one(tmp_path: Path) -> None:
    page = Path(__file__).parents[3] / "docs" / "jobs.md"
    (example,) = re.findall(r"^```toml\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    file = read_job_file(written(tmp_path, example))
    assert JobConfig.of(**file.job).store == "top:5"


@pytest.mark.cluster
def test_a_job_runs_from_its_file_and_flags_win(
    files: Files, scheduler: str, tmp_path: Path
) -> None:
    file = written(
        tmp_path,
        f'model = "{files.model}"\ninput = "{files.images}"\noutput = "out.zarr"\n'
        f'scheduler = "{scheduler}"\nn = 2\ntolerate = 1\ncode = "replication"\nbatch = 10\n'
        'limit = 20\njson = "summary.json"\n',
    )
    result = fcdcc("run", "--config", file, "--limit", 10)
    assert result.exit_code == 0, result.output
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["blocks_total"], summary["images_done"]) == (1, 10)
    result = fcdcc("run", "--config", file)
    assert json.loads((tmp_path / "summary.json").read_text())["blocks_skipped"] == 1
    stored = zarr.open_group(tmp_path / "out.zarr", mode="r")["prediction"]
    assert isinstance(stored, zarr.Array)
    assert stored.shape == (20, 10)


def test_a_summary_that_cannot_be_written_is_said_before_the_work(
    files: Files, tmp_path: Path
) -> None:
    result = fcdcc(
        "run", files.model, files.images, tmp_path / "out.zarr", "--json", tmp_path / "no" / "s"
    )
    assert result.exit_code == 2
    assert "cannot be written" in result.stderr
    assert not (tmp_path / "out.zarr").exists()
