"""Scripts without a main guard, whose worker processes would run them again."""

from __future__ import annotations

import pickle
import subprocess
import sys
from multiprocessing import process
from pathlib import Path

import pytest

from fcdcc.pipeline import JobConfig
from fcdcc.pipeline.errors import MainGuardError, ModelError
from fcdcc.pipeline.runtime import job
from fcdcc.pipeline.runtime.main_guard import check_main_guard
from support.small import Files

CHECK = "from fcdcc.pipeline.runtime.main_guard import check_main_guard\n"


def run_script(folder: Path, text: str, *options: str) -> subprocess.CompletedProcess[str]:
    script = folder / "script.py"
    script.write_text(text)
    return subprocess.run(
        [sys.executable, *options, str(script)], capture_output=True, text=True, timeout=240
    )


@pytest.mark.long
def test_a_script_without_a_guard_ends_with_one_line_that_works(
    files: Files, tmp_path: Path
) -> None:
    output = tmp_path / "out.zarr"
    options = (
        f"model={str(files.model)!r}, input={str(files.images)!r}, output={str(output)!r}, "
        "workers=1, progress=False, dashboard_address=':0', limit=4"
    )
    script = f"from fcdcc.pipeline import JobConfig, run\nrun(JobConfig({options}))\n"
    refused = run_script(tmp_path, script)
    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1
    assert "script.py, line 2, " in refused.stderr
    assert 'if __name__ == "__main__":' in refused.stderr
    assert not output.exists()
    guarded = script.replace("\nrun(", '\nif __name__ == "__main__":\n    run(')
    done = run_script(tmp_path, guarded)
    assert done.returncode == 0, done.stderr


def test_a_run_that_starts_no_processes_needs_no_guard(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise MainGuardError("no guard")

    monkeypatch.setattr(job, "check_main_guard", refuse)
    places = {"model": "no.pt2", "input": "i", "output": "o"}
    with pytest.raises(MainGuardError):
        job.run(JobConfig.of(**places))
    for options in ({"processes": False}, {"scheduler": "tcp://127.0.0.1:1"}):
        with pytest.raises(ModelError, match=r"no\.pt2"):  # it got further
            job.run(JobConfig.of(**places, **options))


@pytest.mark.parametrize(
    "call",
    [
        "if __name__ == '__main__':\n    check_main_guard()\n",
        "import sys\nif len(sys.argv) < 9:\n    check_main_guard()\n",
        "def main():\n    check_main_guard()\n\n__name__ == '__main__' and main()\n",
    ],
)
def test_a_call_under_a_condition_is_left_alone(tmp_path: Path, call: str) -> None:
    assert run_script(tmp_path, CHECK + call).returncode == 0


@pytest.mark.parametrize(
    "call",
    [
        "check_main_guard()\n",
        "def main():\n    if True:\n        check_main_guard()\n\nmain()\n",
        "for _ in range(2):\n    [check_main_guard() for _ in range(2)]\n",
    ],
)
def test_a_call_under_no_condition_is_refused(tmp_path: Path, call: str) -> None:
    refused = run_script(tmp_path, CHECK + call)
    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1


def test_code_that_no_worker_imports_needs_no_guard(tmp_path: Path) -> None:
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__main__.py").write_text(CHECK + "check_main_guard()\n")
    for words in (["-c", CHECK + "check_main_guard()"], ["-m", "package"]):
        done = subprocess.run([sys.executable, *words], capture_output=True, cwd=tmp_path)
        assert done.returncode == 0, done.stderr


def test_a_worker_that_runs_the_script_again_ends_without_a_word(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(process.current_process(), "_inheriting", True, raising=False)
    with pytest.raises(SystemExit) as caught:
        check_main_guard()
    assert caught.value.code == 1


def test_the_error_can_be_caught_and_pickled() -> None:
    error = pickle.loads(pickle.dumps(MainGuardError("no guard")))
    assert isinstance(error, Exception)
    assert (str(error), error.code) == ("no guard", "no guard")
