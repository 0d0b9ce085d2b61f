"""Each field of each file that an output or a plan consists of, replaced by anything.

The checksum is made to fit, as it does for whoever wrote the file. All commands then say in one
line what is wrong, or report it as damage, or it does not matter: never a traceback, and never a
wrong prediction.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from fcdcc.coding.errors import FcdccError
from fcdcc.pipeline import Plan, infer, open_model
from fcdcc.storage import Fingerprint
from fcdcc.storage.checksummed_json import seal, unseal
from support.jobs import fcdcc
from support.small import Files

pytestmark = pytest.mark.cluster

Json: TypeAlias = Any
Place: TypeAlias = "tuple[str | int, ...]"

LIMIT, BATCH = 12, 4

JUNK: list[Json] = [
    None, True, False, -1, 0, 1, 2, 3, 2**31, 2**63, 1 << 70, -(1 << 70), 1e308, -0.5, "", "x",
    "done", "failed", "../../x", "/etc/passwd", "prediction/../../x", "\0", "a" * 300, "float64",
    "int8", [], {}, [[]], {"x": 1}, [1] * 40, [[[[[]]]]], "\ud800", "a\nb", "[/bold]", [10**12],
    [10**18, 4],
]  # fmt: skip

texts = st.text(max_size=6)
scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | texts
)  # fmt: skip
anything = st.sampled_from(JUNK) | st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)  # fmt: skip

quick = settings(
    max_examples=10,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
thorough = settings(quick, max_examples=1500)


def places(value: Json, here: Place = ()) -> Iterator[Place]:
    """Yield where everything is in decoded JSON, outermost first."""
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value[:3])
    for name, inner in items:
        yield (*here, name)
        yield from places(inner, (*here, name))


def bent(value: Json, place: Place, change: Json, *, leave_out: bool) -> Json:
    """Return decoded JSON with one of its values replaced or left out."""
    copied = json.loads(json.dumps(value))
    parent = copied
    for name in place[:-1]:
        parent = parent[name]
    if leave_out:
        del parent[place[-1]]
    else:
        parent[place[-1]] = change
    return copied


@dataclass(frozen=True)
class Output:
    """A complete output, the files of its job, and their names."""

    folder: Path
    files: Files
    scheduler: str

    @property
    def path(self) -> Path:
        return self.folder / "out.zarr"

    def command(self, output: Path) -> list[object]:
        return [
            "run", self.files.model, self.files.images, output, "--scheduler", self.scheduler,
            "--n", 3, "--tolerate", 1, "--batch", BATCH, "--limit", LIMIT,
            "--classes", self.folder / "names.txt",
        ]  # fmt: skip

    @property
    def plan(self) -> Path:
        return self.folder / "plan.json"


@pytest.fixture(scope="module")
def output(files: Files, scheduler: str, tmp_path_factory: pytest.TempPathFactory) -> Output:
    made = Output(tmp_path_factory.mktemp("output"), files, scheduler)
    (made.folder / "names.txt").write_text("\n".join(f"class {n}" for n in range(10)))
    result = fcdcc(*made.command(made.path))
    assert result.exit_code == 0, result.output
    ours = [files.model, files.images, "--n", 3, "--tolerate", 1, "--batch", BATCH]
    result = fcdcc("plan", *ours, "--limit", LIMIT, "--json", made.plan)
    assert result.exit_code == 0, result.output
    return made


def check_said(result: Any, *codes: int) -> None:
    """Check that a command ended as it should, with one line if it was refused."""
    assert result.exit_code in codes, (result.output, result.exception)
    assert "Traceback" not in result.output
    if result.exit_code == 2:
        assert len(result.output.strip().splitlines()) == 1, result.output
        assert len(result.output) < 3000
        assert "a value that was given cannot be used" not in result.output, result.output


def check_all_commands(output: Output, copied: Path) -> None:
    check_said(fcdcc("verify", copied), 0, 2, 5)
    check_said(fcdcc("status", copied), 0, 2, 4)
    check_said(fcdcc("status", copied, "--json"), 0, 2, 4)
    check_said(fcdcc("report", copied), 0, 2)
    check_said(fcdcc("report", copied, "--html", copied.with_name("report.html")), 0, 2)
    again = fcdcc(*output.command(copied))
    check_said(again, 0, 2)
    if again.exit_code == 0:
        check_predictions(output, copied)
        check_said(fcdcc("verify", copied), 0, 5)


def check_predictions(output: Output, copied: Path) -> None:
    with xr.open_zarr(copied) as stored:
        made = stored["prediction"].values
    np.testing.assert_allclose(made, output.files.expected[:LIMIT], atol=1e-5)


SEALED = [".fcdcc/run.json", ".fcdcc/contents.json", ".fcdcc/blocks/00000001.json", "journal"]


def names_of(output: Output, name: str) -> list[str]:
    """Return the names of a file and its copy."""
    if name == "journal":
        (journal,) = (output.path / ".fcdcc" / "runs").iterdir()
        return [f".fcdcc/runs/{journal.name}"]
    return [name, name.replace(".json", ".copy.json")] if "blocks" not in name else [name]


def check_bent_file(output: Output, folder: Path, name: str, data: st.DataObject) -> None:
    names = names_of(output, name)
    members = unseal((output.path / names[0]).read_bytes().rstrip(b"\n"))
    place = data.draw(st.sampled_from([*places(members)]), label="place")
    leave_out = data.draw(st.integers(0, 9), label="leave out") == 0
    changed = bent(members, place, data.draw(anything, label="value"), leave_out=leave_out)
    assume(changed)
    try:
        sealed = seal(changed) + b"\n"
    except (RecursionError, ValueError):  # NaN
        return
    copied = folder / "copy.zarr"
    shutil.rmtree(copied, ignore_errors=True)
    shutil.copytree(output.path, copied)
    for one in names:
        (copied / one).write_bytes(sealed)
    if data.draw(st.booleans(), label="a block is missing"):
        (copied / ".fcdcc" / "blocks" / "00000002.json").unlink()
    check_all_commands(output, copied)


@pytest.mark.parametrize("name", SEALED)
@quick
@given(data=st.data())
def test_any_value_in_any_field_of_an_output(
    output: Output, tmp_path: Path, name: str, data: st.DataObject
) -> None:
    check_bent_file(output, tmp_path, name, data)


@pytest.mark.long
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("name", SEALED)
@thorough
@given(data=st.data())
def test_any_value_in_any_field_of_an_output_for_long(
    output: Output, tmp_path: Path, name: str, data: st.DataObject
) -> None:
    check_bent_file(output, tmp_path, name, data)


def check_bent_plan(output: Output, folder: Path, data: st.DataObject) -> None:
    plan = json.loads(output.plan.read_text())
    place = data.draw(st.sampled_from([*places(plan)]), label="place")
    leave_out = data.draw(st.integers(0, 9), label="leave out") == 0
    changed = bent(plan, place, data.draw(anything, label="value"), leave_out=leave_out)
    file = folder / "plan.json"
    file.write_text(json.dumps(changed))
    copied = folder / "planned.zarr"
    shutil.rmtree(copied, ignore_errors=True)
    command = [
        "run", output.files.model, output.files.images, copied, "--scheduler", output.scheduler,
        "--limit", LIMIT, "--plan", file,
    ]  # fmt: skip
    result = fcdcc(*command)
    check_said(result, 0, 2)
    if result.exit_code == 0:
        check_predictions(output, copied)
    else:
        assert not copied.exists()
    try:
        made = Plan.from_json(json.dumps(changed))
        images = np.zeros((LIMIT, 3, 16, 16), dtype=np.uint8)
        str(made)
        infer(open_model(output.files.model), images, plan=made)
        made._repr_html_()
    except FcdccError:
        pass


@quick
@given(data=st.data())
def test_any_value_in_any_field_of_a_plan(
    output: Output, tmp_path: Path, data: st.DataObject
) -> None:
    check_bent_plan(output, tmp_path, data)


@pytest.mark.long
@pytest.mark.timeout(7200)
@thorough
@given(data=st.data())
def test_any_value_in_any_field_of_a_plan_for_long(
    output: Output, tmp_path: Path, data: st.DataObject
) -> None:
    check_bent_plan(output, tmp_path, data)


@given(st.dictionaries(texts, anything, max_size=3), st.dictionaries(texts, anything, max_size=3))
def test_the_differences_of_any_two_fingerprints_are_said(
    ours: dict[str, Json], theirs: dict[str, Json]
) -> None:
    first, second = Fingerprint.of(ours), Fingerprint.of(theirs)
    said = first.differences(second)
    assert bool(said) == (first != second)
    assert all(len(line) < 1000 and "\n" not in line for line in said)


def test_a_seal_fits_what_is_no_json(output: Output, tmp_path: Path) -> None:
    copied = tmp_path / "copy.zarr"
    shutil.copytree(output.path, copied)
    for body in (b"{not json}", b'{"a":' + b"[" * 10**5, b"[]", b'{"a":' + b"9" * 5000 + b"}"):
        data = b'{"check":"' + hashlib.sha256(b"{" + body[1:]).hexdigest().encode() + b'",'
        for name in (*names_of(output, SEALED[0]), *names_of(output, SEALED[1])):
            (copied / name).write_bytes(data + body[1:] + b"\n")
        check_all_commands(output, copied)
