"""The files in examples/monitoring: they load, and ask for metrics that there are."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from fcdcc.pipeline.anyk.state_machine.state import AnyKState
from fcdcc.pipeline.monitoring.dashboard.collector import RunCollector
from fcdcc.pipeline.monitoring.dashboard.metrics import families
from simulation import SimulatedCluster, Steady, one_layer

FOLDER = Path(__file__).parents[3] / "examples" / "monitoring"
METRIC = re.compile(r"\bfcdcc_[a-z_]+")


def known_names() -> set[str]:
    """Return the names of all samples of a scheduler with some history."""
    state = AnyKState()
    cluster = SimulatedCluster(state, Steady({}))
    cluster.join("tcp://a:1")
    cluster.run((one_layer(block, n=1, delta=1) for block in range(6)), 1)
    collector = RunCollector(state)
    collector.refresh(cluster.now)
    return {sample.name for family in families(collector) for sample in family.samples}


def test_all_names_of_the_interface_are_there() -> None:
    counters = ("groups", "erasures", "decodes", "parity_started", "corrupt_shares", "blocks_done")
    assert {f"fcdcc_{name}_total" for name in counters} <= known_names()
    assert "fcdcc_group_seconds_bucket" in known_names()


@pytest.mark.parametrize("file", ["grafana-dashboard.json", "alerts.yml"])
def test_files_ask_for_metrics_that_there_are(file: str) -> None:
    text = (FOLDER / file).read_text("utf-8")
    asked = set(METRIC.findall(text))
    assert asked
    assert asked <= known_names()


def test_the_dashboard_is_whole() -> None:
    dashboard = json.loads((FOLDER / "grafana-dashboard.json").read_text("utf-8"))
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        assert panel["targets"], panel["title"]
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24


@pytest.mark.parametrize(
    "arguments",
    [("check", "config", "prometheus.yml"), ("test", "rules", "alerts_test.yml")],
    ids=" ".join,
)
def test_promtool_finds_nothing_wrong(arguments: tuple[str, ...]) -> None:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("there is no promtool here (on Debian: apt-get install prometheus)")
    done = subprocess.run([program, *arguments], cwd=FOLDER, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_can_read_what_the_dashboard_asks(tmp_path: Path) -> None:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("there is no promtool here (on Debian: apt-get install prometheus)")
    dashboard = json.loads((FOLDER / "grafana-dashboard.json").read_text("utf-8"))
    asked = [
        t["expr"].replace("$instance", ".*") for p in dashboard["panels"] for t in p["targets"]
    ]
    rules = [{"record": f"panel:{number}", "expr": expr} for number, expr in enumerate(asked)]
    file = tmp_path / "rules.yml"
    file.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}), "utf-8")
    done = subprocess.run([program, "check", "rules", str(file)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
