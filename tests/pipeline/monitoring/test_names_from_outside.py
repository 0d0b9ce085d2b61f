"""Names of layers and files are shown as they are: no markup of a page or a terminal."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from distributed import Client, LocalCluster

from fcdcc.storage import open_predictions
from fcdcc.storage.checksummed_json import seal, unseal
from support.jobs import fcdcc
from support.pt2 import GRAPH, edited, pt2
from support.small import SHAPE, Files, SmallNet

pytestmark = pytest.mark.cluster

TAG = '<img src=x onerror="alert(1)"><script>alert(2)'
LAYER = f"{TAG}</script>[/bold][link=x]\x1b[31m\x07{{{{7*7}}}}"
FILE = f"{TAG}[red]\x1b[31m{{{{7*7}}}}'&amp;.zarr"


class Tags(HTMLParser):
    """Collects the tags, attributes and scripts of a page, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.attributes: list[tuple[str, str]] = []
        self.scripts = ""
        self.text = ""
        self._in_script = False
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(name, text or "") for name, text in attrs]
        self._in_script = tag == "script"

    def handle_endtag(self, tag: str) -> None:
        self._in_script = self._in_script and tag != "script"

    def handle_data(self, data: str) -> None:
        if self._in_script:
            self.scripts += data
        else:
            self.text += data


def check_page(page: str, *names: str) -> None:
    tags = Tags(page)
    assert ("src", "x") not in tags.attributes  # of the picture; Dask's frame has others
    assert "alert" not in tags.scripts
    assert not [text for name, text in tags.attributes if name.startswith("on") and "alert" in text]
    for name in names:
        assert name in tags.text
    assert "{{7*7}}" in tags.text  # no template takes it


def check_terminal(text: str, *names: str) -> None:
    assert not {"\x1b", "\x07"} & {*text}
    shown = "".join(text.split())
    for name in names:
        assert "".join(name.split()) in shown


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small model, with layers of names that are markup."""

    def rename(program: Any) -> None:
        for node in program["graph_module"]["graph"]["nodes"]:
            stack = node["metadata"].get("nn_module_stack")
            if stack:
                *outer, last = stack.split(";")
                key, _, kind = last.split(",", 2)
                node["metadata"]["nn_module_stack"] = ";".join([*outer, f"{key},{LAYER},{kind}"])

    path = tmp_path_factory.mktemp("model") / f"{TAG}.pt2"
    path.write_bytes(edited(pt2(SmallNet().eval(), (2, *SHAPE)), GRAPH, rename))
    return path


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(
        n_workers=3, processes=False, threads_per_worker=1, dashboard_address="127.0.0.1:0"
    ) as cluster:
        yield cluster


def test_a_plan_shows_layers_as_they_are_named(model: Path, files: Files, tmp_path: Path) -> None:
    page = tmp_path / "plan.html"
    result = fcdcc("plan", model, files.images, "--html", page, "--batch", 4)
    assert result.exit_code == 0, result.output
    check_terminal(result.output, TAG[:20])
    check_page(page.read_text(), TAG)


def test_page_and_reports_show_names_as_they_are(
    model: Path, files: Files, cluster: LocalCluster, tmp_path: Path
) -> None:
    output = tmp_path / FILE
    result = fcdcc(
        "run", model, files.images, output, "--scheduler", cluster.scheduler_address,
        "--n", 3, "--tolerate", 1, "--batch", 4, "--log-level", "debug",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    check_terminal(result.output)
    open_predictions(output).discard([1], LAYER)
    url = f"http://127.0.0.1:{cluster.scheduler.http_server.port}"
    with urllib.request.urlopen(f"{url}/fcdcc", timeout=60) as answer:
        check_page(answer.read().decode(), FILE)
    with Client(cluster, set_as_default=False), urllib.request.urlopen(f"{url}/metrics") as answer:
        assert "alert" not in answer.read().decode()
    report = fcdcc("report", output)
    assert report.exit_code == 0, report.output
    check_terminal(report.output, TAG[:20])
    page = tmp_path / "report.html"
    assert fcdcc("report", output, "--html", page).exit_code == 0
    check_page(page.read_text(), TAG, FILE.split("\x1b")[0])
    status = fcdcc("status", output)
    assert status.exit_code == 4
    check_terminal(status.output, TAG)
    (output / "prediction" / "c.1.0").unlink()
    check_terminal(fcdcc("verify", output).output)


def test_a_journal_that_no_run_wrote_steers_no_terminal(
    files: Files, cluster: LocalCluster, tmp_path: Path
) -> None:
    output = tmp_path / "out.zarr"
    result = fcdcc(
        "run", files.model, files.images, output, "--scheduler", cluster.scheduler_address,
        "--n", 3, "--tolerate", 1, "--batch", 4,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    (journal,) = (output / ".fcdcc" / "runs").iterdir()
    members = json.dumps(unseal(journal.read_bytes().rstrip()))
    for run in ("run", "error", "state"):
        members_now = json.loads(members) | {run: LAYER}
        for layer in members_now["layers"]:
            layer |= {"layer": LAYER, "name": LAYER, "split": LAYER}
        journal.write_bytes(seal(members_now) + b"\n")
        report = fcdcc("report", output)
        assert report.exit_code == 0, report.output
        check_terminal(report.output)
        page = tmp_path / "report.html"
        assert fcdcc("report", output, "--html", page).exit_code == 0
        assert "<img" not in page.read_text()
