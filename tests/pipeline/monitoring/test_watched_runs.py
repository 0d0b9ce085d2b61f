"""A run that is watched: the page, the JSON, the metrics and the report say what it says."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import psutil
import pytest
from distributed import Client, LocalCluster
from distributed.diagnostics.plugin import SchedulerPlugin

from fcdcc.pipeline import JobConfig, Summary, run
from fcdcc.pipeline.anyk import AnyKPlugin
from fcdcc.pipeline.anyk.queries import REPORT
from fcdcc.pipeline.monitoring.dashboard.dashboard_plugin import DashboardPlugin
from fcdcc.pipeline.monitoring.dashboard.service import EXCHANGE
from fcdcc.pipeline.monitoring.progress import Quiet, RunProgress
from fcdcc.pipeline.runtime.cluster import PRELOAD
from fcdcc.pipeline.runtime.plugins import register_plugins
from fcdcc.pipeline.worker.executable_plugin import SILENT_SECONDS
from support.browser import Page, browser, chromium
from support.jobs import fcdcc
from support.small import Files

pytestmark = pytest.mark.cluster

SECRET = "s3cret-token"


@dataclass(frozen=True)
class Place:
    """A cluster of six worker processes with the plugin and a dashboard."""

    client: Client
    address: str
    url: str

    def get(self, path: str) -> str:
        with urllib.request.urlopen(self.url + path, timeout=60) as answer:
            return str(answer.read().decode())

    def json(self) -> Any:
        return json.loads(self.get("/json/fcdcc.json"))

    def metrics(self) -> dict[str, float]:
        """Return the sums of our metrics over all labels."""
        sums: dict[str, float] = {}
        for line in self.get("/metrics").splitlines():
            if line.startswith("fcdcc_"):
                name = line.split("{")[0].split(" ")[0]
                sums[name] = sums.get(name, 0.0) + float(line.rpartition(" ")[2])
        return sums


@contextmanager
def place(processes: bool, plugins: Sequence[SchedulerPlugin] = ()) -> Iterator[Place]:
    cluster = LocalCluster(
        n_workers=6,
        processes=processes,
        threads_per_worker=1,
        dashboard_address="127.0.0.1:0",
        preload=PRELOAD if processes else [],
        silence_logs=50,
    )
    with cluster, Client(cluster, set_as_default=False) as client:
        for plugin in plugins:
            client.register_plugin(plugin)
        if not plugins:
            register_plugins(client)
            register_plugins(client)  # again changes nothing
        port = cluster.scheduler.http_server.port
        yield Place(client, cluster.scheduler_address, f"http://127.0.0.1:{port}")


@pytest.fixture(scope="module")
def quiet_place() -> Iterator[Place]:
    with place(processes=False) as found:
        yield found


def config(files: Files, output: Path, where: Place, **options: Any) -> JobConfig:
    return JobConfig(
        model=str(files.model),
        input=str(files.images),
        output=str(output),
        scheduler=where.address,
        **{"batch": 1, "in_flight": 2, **options},
    )


SAME = ("groups", "erasures", "decodes", "parity_started")


def span_names(dask_scheduler: Any) -> list[tuple[str, ...]]:
    return [span.name for span in dask_scheduler.extensions["spans"].spans.values()]


def numbers(summary: Summary) -> dict[str, float]:
    """Return what the page shows, from the summary."""
    found = {name: getattr(summary, name) for name in SAME}
    return {
        **found,
        "blocks_done": summary.blocks_done,
        "blocks_failed": summary.blocks_failed,
        "blocks_total": summary.blocks_total,
        "extra_work": summary.extra_work,
        "max_condition_number": summary.max_condition_number or 0.0,
        "workers_lost": len(summary.workers_lost),
    }


class Stopping(Quiet):
    """Stops two worker processes after some blocks, and says when."""

    def __init__(self, where: Place, after: int) -> None:
        found = where.client.run(os.getpid)
        self.victims = dict(list(found.items())[:2])
        self.stopped = threading.Event()
        self._after = after

    def advance(self, advance: RunProgress) -> None:
        if advance.blocks_done >= self._after and not self.stopped.is_set():
            for process in self.victims.values():
                os.kill(process, signal.SIGSTOP)
            self.stopped.set()

    def end(self) -> None:
        for process in self.victims.values():
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                continue


WIDTHS = (1280, 800, 390)

ASKEW = """
[...document.querySelectorAll('table')].flatMap(table => {
  const [head, row] = [table.querySelector('thead tr'), table.querySelector('tbody tr')];
  const shown = cells => [...cells].filter(cell => cell.offsetParent);
  const lefts = cells => shown(cells).map(cell => Math.round(cell.getBoundingClientRect().left));
  const [over, under] = [lefts(head.children), lefts(row.children)];
  return JSON.stringify(over) === JSON.stringify(under) ? [] : [head.innerText];
})
"""
"""The heads of tables whose columns are not above their cells."""


def check_widths(page: Page, folder: Path, name: str) -> None:
    """Check that a page fits on screens, and that columns are below their names."""
    for width in WIDTHS:
        page.picture(width, 900, folder / f"{name}-{width}.png")
        assert page.overflow() <= 0, width
        assert page.value(ASKEW) == [], width
    workers = "document.querySelector('td.address').closest('.wide')"
    assert page.value(f"{workers}.scrollWidth - {workers}.clientWidth") <= 0  # on a telephone, too


def test_the_page_in_a_browser_says_what_the_summary_says(files: Files, tmp_path: Path) -> None:
    chromium()
    output = tmp_path / "out.zarr"
    with place(processes=True) as where, ThreadPoolExecutor(1) as pool, browser() as page:
        stopping = Stopping(where, after=5)
        try:
            page.open(where.url + "/status")
            assert "fcdcc" in page.value(
                "[...document.querySelectorAll('.navbar a')].map(a => a.getAttribute('href'))"
            )
            page.open(where.url + "/fcdcc")
            assert "No coded run so far" in page.value("document.body.innerText")
            # Eager: groups that the stopped workers have a plain share of must be decoded.
            job = config(files, output, where, redundancy="eager")
            running = pool.submit(run, job, stopping)
            page.wait_for("!!document.querySelector('#state[data-state=running]')")
            assert stopping.stopped.wait(60)
            # On a busy machine another worker may not answer for a moment.
            victims = json.dumps([*stopping.victims])
            page.wait_for(
                f"(s => /not answer|stuck/.test(s) && {victims}.some(v => s.includes(v)) && s)"
                "(document.getElementById('sentence').innerText)"
            )
            summary = running.result(200)
            page.wait_for("!!document.querySelector('#state[data-state=complete]')")
            shown = page.value(
                "Object.fromEntries([...document.querySelectorAll('[id^=n-]')]"
                ".map(e => [e.id.slice(2), Number(e.dataset.value)]))"
            )
            expected = numbers(summary)
            # The run waits for nobody: the stopped workers may be removed when it is over.
            assert shown["workers_lost"] >= expected.pop("workers_lost")
            assert {name: shown[name] for name in expected} == pytest.approx(expected)
            assert expected["decodes"] > 0
            assert summary.worker_loss is not None or not summary.workers_lost
            check_widths(page, tmp_path, "page")
        finally:
            stopping.end()
    told = fcdcc("report", output, "--html", tmp_path / "report.html")
    assert told.exit_code == 0, told.output
    with browser() as page:
        page.open((tmp_path / "report.html").as_uri())
        text = page.value("document.body.innerText")
        for address in stopping.victims:
            assert address in text
        assert f"{summary.erasures} shares were not waited for" in text
        check_widths(page, tmp_path, "report")


class StoppingEarly(Quiet):
    """Stops a worker process while the model is sent, and holds the run until the page says so."""

    def __init__(self, where: Place) -> None:
        self.address, self.process = [*where.client.run(os.getpid).items()][2]
        self._where = where
        self._sentence = ""

    def step(self, what: str) -> None:
        if what.startswith("sending"):
            os.kill(self.process, signal.SIGSTOP)

    def advance(self, advance: RunProgress) -> None:
        if advance.blocks_done < advance.blocks_total:
            return
        until = monotonic() + 100
        while not self.is_silent:
            assert monotonic() < until
            sleep(0.1)

    @property
    def is_silent(self) -> bool:
        """Whether the worker has been silent for as long as makes it worth mentioning."""
        rows = {row["address"]: row for row in self._where.json()["workers"]}
        return float(rows[self.address]["silent"]) > SILENT_SECONDS


class Beginning(Quiet):
    """Notes what the page shows when the first block is about to begin."""

    def __init__(self, where: Place) -> None:
        self.shown: dict[str, Any] = {}
        self._where = where

    def begin(self, run: str) -> None:
        self.shown = self._where.json()
        assert self.shown["run"]["id"] == run


@pytest.mark.long
def test_a_worker_that_stopped_while_nothing_ran_is_shown_and_gets_no_shares(
    files: Files, tmp_path: Path
) -> None:
    output = tmp_path / "out.zarr"
    with place(processes=True) as where:
        beginning = Beginning(where)
        address, process = [*where.client.run(os.getpid).items()][1]
        run(config(files, tmp_path / "before.zarr", where, n=6, tolerate=2), Quiet())
        try:
            os.kill(process, signal.SIGSTOP)
            until = monotonic() + 100
            sentence = ""
            while not (address in sentence and "not answered for" in sentence):
                assert monotonic() < until, sentence
                sleep(0.1)
                shown = where.json()
                sentence = shown["sentence"]
            assert shown["run"]["state"] == "complete"
            summary = run(config(files, output, where, n=6, tolerate=2), beginning)
        finally:
            os.kill(process, signal.SIGKILL)
    assert beginning.shown["run"]["state"] == "starting"
    rows = {row["address"]: row for row in beginning.shown["workers"]}
    assert rows[address]["silent"] > 0
    assert summary.status == "complete"
    found = json.loads(fcdcc("report", output, "--json").output)["runs"][0]
    for worker in found["workers"]:
        if worker["address"] == address:  # it is left out if it was removed
            assert (worker["done"], worker["lost"], worker["erased"]) == (0, 0, 0)


def test_a_worker_that_stops_before_the_first_block_is_named_everywhere(
    files: Files, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    output = tmp_path / "out.zarr"
    with place(processes=True) as where:
        caplog.set_level("WARNING")  # the cluster silences handlers, this one among them
        stopping = StoppingEarly(where)
        try:
            summary = run(config(files, output, where, n=6, tolerate=2), stopping)
            shown = where.json()
        finally:
            os.kill(stopping.process, signal.SIGKILL)
    address = stopping.address
    [details] = [row["details"] for row in shown["workers"] if row["address"] == address]
    called = f"{address} ({details})"
    assert str(stopping.process) in details
    [warning] = [text for text in caplog.messages if "the run begins all the same" in text]
    assert warning.startswith(f"worker {called} has not answered for ")
    assert f"{called} is the slow one: it has not answered" in shown["sentence"]
    assert summary.workers_silent == (address,)
    assert summary.worker_loss is not None
    assert summary.worker_loss["silent"] == 1
    last = str(summary)
    assert f"1 worker did not answer at the end ({address})" in last
    assert "no worker was lost" not in last
    told = fcdcc("report", output).output
    assert "1 worker did not answer at the end" in told
    assert "No worker was lost" not in told
    assert "No worker is slow" not in told
    assert f"{called} had not answered for " in " ".join(told.split())
    assert "silent for" in told
    drawn = fcdcc("report", output, "--html", "-").output
    assert f"{called} had not answered for " in drawn
    found = json.loads(fcdcc("report", output, "--json").output)["runs"][0]
    [silent] = [worker for worker in found["workers"] if worker["silent"]]
    assert (silent["address"], silent["pid"], silent["done"]) == (address, stopping.process, 0)
    assert len(found["workers"]) == 6
    assert found["summary"]["workers_silent"] == [address]
    assert found["worker_loss"]["silent"] == 1


def test_what_was_opened_on_the_page_stays_open(quiet_place: Place) -> None:
    chromium()
    with browser() as page:
        page.open(quiet_place.url + "/fcdcc")
        page.value("document.querySelector('#fcdcc details').open = true")
        page.value("document.querySelector('#fcdcc h1').dataset.seen = 1")
        page.wait_for("!document.querySelector('#fcdcc h1').dataset.seen")  # it was drawn anew
        assert page.value("document.querySelector('#fcdcc details').open")


def test_json_and_metrics_say_what_the_summary_says(
    files: Files, quiet_place: Place, tmp_path: Path
) -> None:
    before = quiet_place.metrics()
    output = tmp_path / "out.zarr"
    summary = run(config(files, output, quiet_place, batch=4, redundancy="eager"))
    shown = quiet_place.json()
    assert shown["run"]["state"] == "complete"
    assert shown["run"]["output"] == str(output)
    assert {name: shown["counters"][name] for name in SAME} == {
        name: getattr(summary, name) for name in SAME
    }
    assert shown["run"]["extra_work"] == pytest.approx(summary.extra_work)
    assert shown["conditions"]["max"] == pytest.approx(summary.max_condition_number)
    page = fcdcc("report", output, "--html", "-").output
    for kind, what in (("read", "reading images"), ("write", "writing predictions")):
        assert f'<rect class="{kind}"' in page
        assert what in page
    assert "worker not there any more" not in page
    assert sum(layer["groups"] for layer in shown["layers"]) == summary.groups
    assert sum(worker["erased"] for worker in shown["workers"]) == summary.erasures
    assert all("learned_pace" in worker for worker in shown["workers"])
    found = json.loads(fcdcc("report", output, "--json").output)["runs"][0]["workers"]
    assert {worker["pid"] for worker in found} <= {worker["pid"] for worker in shown["workers"]}
    assert all(psutil.pid_exists(worker["pid"]) for worker in found)
    live = quiet_place.get("/fcdcc")
    late = any(worker["erased"] or worker["ghosts"] for worker in shown["workers"])
    assert ("not waited for</th>" in live) == late
    names = {layer["name"] for layer in shown["layers"]}
    assert names
    assert names <= {"first", "second"}
    after = quiet_place.metrics()
    for name in (*SAME, "blocks_done", "corrupt_shares"):
        grown = after[f"fcdcc_{name}_total"] - before.get(f"fcdcc_{name}_total", 0.0)
        assert grown == (summary.to_dict()[name] if name != "corrupt_shares" else 0), name
    count = "fcdcc_group_seconds_count"
    assert after[count] - before.get(count, 0.0) == summary.groups
    assert "dask_scheduler_workers" in quiet_place.get("/metrics")
    spans = quiet_place.client.run_on_scheduler(span_names)
    assert ("fcdcc", shown["run"]["id"]) in spans
    erased = [
        event
        for _, event in quiet_place.client.get_events("fcdcc")
        if event["event"] == "erasure" and event["run"] == shown["run"]["id"]
    ]
    assert len(erased) == summary.erasures


def test_the_metrics_of_ten_runs_on_one_scheduler_say_what_all_of_them_did(
    files: Files, tmp_path: Path
) -> None:
    done = dict.fromkeys((*SAME, "blocks_done"), 0.0)
    with place(processes=False) as where:
        for number in range(10):  # more than the scheduler remembers of those without a history
            output = tmp_path / f"{number}.zarr"
            summary = run(config(files, output, where, batch=25, redundancy="eager"))
            assert summary.blocks_done == 2
            shown = where.json()
            assert (shown["run"]["output"], shown["run"]["state"]) == (str(output), "complete")
            assert (shown["run"]["blocks_done"], shown["run"]["blocks_total"]) == (2, 2)
            assert shown["counters"]["groups"] == summary.groups
            for name in done:
                done[name] += getattr(summary, name)
            idle = [where.metrics() for _ in range(3)]
            for found in idle:
                assert {name: found[f"fcdcc_{name}_total"] for name in done} == done
            assert shown["blocks_done_total"] == done["blocks_done"]
            assert shown["totals"]["groups"] == done["groups"]
        lines = where.get("/metrics").splitlines()
    values = [float(line.rpartition(" ")[2]) for line in lines if line.startswith("fcdcc_")]
    assert min(values) >= 0.0


def record_requests(dask_scheduler: Any) -> None:
    """Make a scheduler record the requests about runs that it answers; on the scheduler."""
    asked: list[str] = []
    dask_scheduler.extensions["test-requests"] = asked
    for name in (EXCHANGE, REPORT):
        handler = dask_scheduler.handlers[name]

        async def answer(
            *args: Any, name: str = name, handler: Any = handler, **kwargs: Any
        ) -> Any:
            asked.append(name)
            return await handler(*args, **kwargs)

        dask_scheduler.handlers[name] = answer


def recorded_requests(dask_scheduler: Any) -> list[str]:
    return list(dask_scheduler.extensions["test-requests"])


def without_exchange(dask_scheduler: Any) -> None:
    del dask_scheduler.handlers[EXCHANGE]


def test_a_run_asks_the_scheduler_for_everything_in_one_request(
    files: Files, tmp_path: Path
) -> None:
    with place(processes=False) as where:
        where.client.run_on_scheduler(record_requests)
        summary = run(config(files, tmp_path / "a.zarr", where, batch=4, redundancy="eager"))
        assert summary.groups > 0
        assert set(where.client.run_on_scheduler(recorded_requests)) == {EXCHANGE}
        # Without the dashboard plugin the any-k plugin alone says what was counted.
        where.client.run_on_scheduler(without_exchange)
        unseen = run(config(files, tmp_path / "b.zarr", where, batch=4, redundancy="eager"))
        assert unseen.groups == summary.groups


def register_anew(client: Client) -> None:
    client.unregister_scheduler_plugin(AnyKPlugin.name)
    client.register_plugin(AnyKPlugin())


def test_the_page_follows_an_anyk_plugin_that_is_registered_anew(
    files: Files, tmp_path: Path
) -> None:
    with place(processes=False) as where:
        run(config(files, tmp_path / "a.zarr", where, batch=10))
        assert where.json()["totals"]["groups"] > 0
        register_anew(where.client)
        until = monotonic() + 60
        while where.json()["totals"]["groups"] > 0:  # half a second later it is drawn anew
            assert monotonic() < until, "the page shows the plugin that was unregistered"
            sleep(0.05)
        summary = run(config(files, tmp_path / "b.zarr", where, batch=10))
        shown = where.json()
        assert shown["run"]["state"] == "complete"
        assert shown["run"]["output"].endswith("b.zarr")
        assert shown["counters"]["groups"] == shown["totals"]["groups"] == summary.groups > 0
        assert where.metrics()["fcdcc_groups_total"] == summary.groups
        assert {worker["gone"] for worker in shown["workers"]} == {""}


def test_the_dashboard_plugin_may_come_before_the_anyk_plugin(files: Files, tmp_path: Path) -> None:
    with place(processes=False, plugins=(DashboardPlugin(),)) as where:
        assert "No coded run so far" in where.get("/fcdcc")
        assert where.metrics()["fcdcc_blocks_failed_total"] == 0  # so that a failure is an increase
        where.client.register_plugin(AnyKPlugin())
        summary = run(config(files, tmp_path / "out.zarr", where, batch=10))
        assert where.json()["counters"]["groups"] == summary.groups > 0


def test_what_is_watched_shows_no_secrets(
    files: Files, quiet_place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FCDCC_TEST_SECRET", SECRET)
    url = f"file://{tmp_path}/out.zarr"
    model = tmp_path / f"{SECRET[:3]}.pt2"
    shutil.copy(files.model, model)
    run(config(files, tmp_path / "out.zarr", quiet_place, batch=10).model_copy(
        update={"output": url, "model": str(model)}))  # fmt: skip
    told = fcdcc("report", url, "--html", tmp_path / "report.html")
    assert told.exit_code == 0, told.output
    journals = (tmp_path / "out.zarr/.fcdcc/runs").glob("*.json")
    texts = [journal.read_text("utf-8") for journal in journals]
    texts += [quiet_place.get(path) for path in ("/fcdcc", "/json/fcdcc.json", "/metrics")]
    texts.append((tmp_path / "report.html").read_text("utf-8"))
    assert len(texts) == 5
    assert not [text for text in texts if SECRET in text]


def test_an_interrupted_run_and_the_one_after_it_are_in_the_report(
    files: Files, quiet_place: Place, tmp_path: Path
) -> None:
    output = tmp_path / "out.zarr"

    class Interrupt(Quiet):
        def advance(self, advance: RunProgress) -> None:
            if advance.blocks_done >= 3:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(config(files, output, quiet_place, batch=4), Interrupt())
    until = monotonic() + 60
    while quiet_place.json()["run"]["state"] != "interrupted":
        assert monotonic() < until, "the page does not show that the run was interrupted"
        sleep(0.05)
    assert "was interrupted" in quiet_place.get("/fcdcc")
    told = fcdcc("report", output)
    assert told.exit_code == 0, told.output
    state = json.loads(fcdcc("status", output, "--json").output)
    done = state["blocks_done"]
    assert 3 <= done < state["blocks_total"] == 13
    assert f"It was interrupted when {done} of 13 blocks were done; the same command" in told.output
    (interrupted,) = json.loads(fcdcc("report", output, "--json").output)["runs"]
    assert interrupted["blocks_done"] == done
    assert interrupted["images_done"] == state["images_done"]
    run(config(files, output, quiet_place, batch=4))
    told = fcdcc("report", output)
    assert "interrupted" in told.output
    assert "complete" in told.output
    page = fcdcc("report", output, "--html", "-").output
    assert page.count("<details") >= 2
    assert "http://" not in page  # it needs nothing else
    assert "<script" not in page


def test_status_during_a_run_says_how_far_it_is(
    files: Files, quiet_place: Place, tmp_path: Path
) -> None:
    output = tmp_path / "out.zarr"
    said: list[str] = []

    class Ask(Quiet):
        def advance(self, advance: RunProgress) -> None:
            if not said:
                said.append(fcdcc("status", output).output)

    run(config(files, output, quiet_place, batch=4), Ask())
    assert "is going on since" in said[0]
    assert "blocks in flight" in said[0]
    assert "is going on" not in fcdcc("status", output).output


def test_watching_costs_little(quiet_place: Place) -> None:
    shown = quiet_place.json()
    assert 0.0 <= shown["watching"]["cpu_share"] < 0.2  # the figure is in docs/watching.md


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def test_prometheus_scrapes_what_the_summary_says(
    files: Files, quiet_place: Place, tmp_path: Path
) -> None:
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("there is no Prometheus here (on Debian: apt-get install prometheus)")
    port = free_port()
    target = quiet_place.url.removeprefix("http://")
    (tmp_path / "prometheus.yml").write_text(
        "global: {scrape_interval: 1s}\n"
        f"scrape_configs: [{{job_name: dask, static_configs: [{{targets: ['{target}']}}]}}]\n"
    )
    address = f"http://127.0.0.1:{port}"

    def ask(query: str) -> float | None:
        text = urllib.parse.urlencode({"query": query})
        try:
            with urllib.request.urlopen(f"{address}/api/v1/query?{text}", timeout=10) as answer:
                found = json.load(answer)["data"]["result"]
        except OSError:
            return None
        return float(found[0]["value"][1]) if found else None

    def wait_for(query: str, value: float) -> None:
        until = monotonic() + 60
        while (seen := ask(query)) != value:
            assert monotonic() < until, f"{query} is {seen}, not {value}"
            sleep(0.2)

    process = subprocess.Popen(
        [program, f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/db",
         f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_for("up", 1.0)
        before = {name: quiet_place.metrics().get(f"fcdcc_{name}_total", 0.0) for name in SAME}
        summary = run(config(files, tmp_path / "out.zarr", quiet_place, batch=4))
        for name in SAME:
            wait_for(f"sum(fcdcc_{name}_total)", before[name] + getattr(summary, name))
        wait_for("sum(fcdcc_group_seconds_bucket{le='+Inf'})", before["groups"] + summary.groups)
    finally:
        process.terminate()
        process.wait(20)
