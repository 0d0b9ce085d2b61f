"""The examples of deployment name files, commands and options that there are."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from fcdcc.pipeline.options import JobConfig

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "examples/deploy"
INSTRUCTIONS = {"FROM", "ARG", "WORKDIR", "COPY", "RUN", "USER", "CMD"}


def instructions() -> list[tuple[str, str]]:
    """The instructions of the Dockerfile, each in one line, with their arguments."""
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    words = [line.partition(" ") for line in lines if line and not line.startswith("#")]
    return [(first, rest) for first, _, rest in words]


def test_the_dockerfile_copies_what_there_is_and_all_that_is_installed() -> None:
    found = instructions()
    assert {name for name, _ in found} <= INSTRUCTIONS
    copied = {source for name, rest in found if name == "COPY" for source in rest.split()[:-1]}
    assert all((ROOT / source).exists() for source in copied)
    assert {"coding", "storage", "pipeline", "pyproject.toml", "constraints.txt"} <= copied
    assert found[-1] == ("CMD", '["fcdcc", "--help"]')
    # Kubernetes can tell that a user is not root only by a number.
    assert ("USER", "1000") in found
    assert ("RUN", "useradd --create-home --uid 1000 fcdcc") in found


def test_the_services_run_commands_with_options_that_there_are() -> None:
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    build = services["scheduler"]["build"]
    assert (DEPLOY / build["context"] / build["dockerfile"]).samefile(DEPLOY / "Dockerfile")
    command = services["job"]["command"]
    assert command[:2] == ["fcdcc", "run"]
    options = dict(word.removeprefix("--").split("=") for word in command if word.startswith("--"))
    places = dict(zip(("model", "input", "output"), command[2:5], strict=True))
    config = JobConfig.of(**places, **options)
    assert config.n == services["worker"]["deploy"]["replicas"]
    assert str(config.scheduler) in services["worker"]["command"]
    restarted = {name for name, service in services.items() if "restart" in service}
    assert restarted == {"scheduler", "worker"}


def worker_options() -> dict[str, list[str]]:
    """Return the options of ``dask worker`` in each recipe, one word each."""
    jobs = (ROOT / "docs/jobs.md").read_text()
    (operator,) = (
        yaml.safe_load(block)["spec"]["worker"]["spec"]["containers"][0]["args"]
        for block in re.findall(r"^```yaml\n(.*?)^```", jobs, re.MULTILINE | re.DOTALL)
        if "DaskCluster" in block
    )
    (by_hand,) = re.findall(r"^dask worker (.*)$", jobs, re.MULTILINE)
    (gateway,) = re.findall(r'"worker", (.*)\]$', jobs, re.MULTILINE)
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    return {
        "operator": operator,
        "by hand": by_hand.split(),
        "gateway": re.findall(r'"(.*?)"', gateway),
        "compose": " ".join(services["worker"]["command"]).replace("=", " ").split(),
    }


@pytest.mark.parametrize("recipe", ["operator", "by hand", "gateway", "compose"])
def test_the_recipes_start_workers_in_the_same_way(recipe: str) -> None:
    words = " ".join(worker_options()[recipe])
    assert "--preload fcdcc.pipeline.worker_memory --preload torch" in words
    assert "--nthreads 1" in words or recipe == "gateway"  # which gives the threads itself


def test_the_workers_of_the_operator_reach_the_data_of_the_job() -> None:
    jobs = (ROOT / "docs/jobs.md").read_text()
    (text,) = re.findall(r"^```yaml\n(.*?DaskCluster.*?)^```", jobs, re.MULTILINE | re.DOTALL)
    pod = yaml.safe_load(text)["spec"]["worker"]["spec"]
    (mount,) = pod["containers"][0]["volumeMounts"]
    (volume,) = pod["volumes"]
    assert mount["name"] == volume["name"]
    claim = f"{volume['persistentVolumeClaim']['claimName']}:{mount['mountPath']}"
    assert f"--print kubernetes --claim {claim}\n" in jobs


def test_the_containers_of_the_operator_run_commands_that_there_are() -> None:
    jobs = (ROOT / "docs/jobs.md").read_text()
    blocks = re.findall(r"^```yaml\n(.*?)^```", jobs, re.MULTILINE | re.DOTALL)
    (spec,) = (yaml.safe_load(block)["spec"] for block in blocks if "DaskCluster" in block)
    containers = [spec[part]["spec"]["containers"][0] for part in ("worker", "scheduler")]
    assert [container["args"][:2] for container in containers] == [
        ["dask", "worker"], ["dask", "scheduler"],
    ]  # fmt: skip
    for program, command, *options in (container["args"] for container in containers):
        told = subprocess.run(
            [sys.executable, "-m", program, command, "--help"],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        assert all(option in told for option in options if option.startswith("--"))


@pytest.mark.long
def test_the_image_is_built_and_has_the_command() -> None:
    docker = shutil.which("docker")
    if (
        docker is None
        or subprocess.run([docker, "info"], capture_output=True, check=False).returncode
    ):
        pytest.skip("there is no builder of container images")
    build = [docker, "build", "-q", "-f", str(DEPLOY / "Dockerfile"), str(ROOT)]
    image = subprocess.run(build, capture_output=True, text=True, check=True).stdout.strip()
    run = [docker, "run", "--rm", image, "fcdcc", "--version"]
    assert "fcdcc" in subprocess.run(run, capture_output=True, text=True, check=True).stdout
