"""TLS from end to end: who has no certificate of the cluster's authority gets nowhere."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
from distributed import Client, LocalCluster, Worker
from distributed.security import Security

from fcdcc.pipeline import JobConfig, run
from fcdcc.pipeline.errors import ClusterError
from support.certificates import OPENSSL, Signed, sign
from support.jobs import fcdcc, predictions
from support.small import Files

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(OPENSSL is None, reason="openssl, which makes the certificates, is missing"),
]


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Signed:
    return sign(tmp_path_factory.mktemp("tls") / "ours")


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Signed:
    """A certificate that another authority has signed."""
    return sign(tmp_path_factory.mktemp("tls") / "theirs")


def security(signed: Signed) -> Security:
    """What all members of a cluster have."""
    names = {"ca_file": str(signed.authority)}
    for role in ("client", "scheduler", "worker"):
        names |= {f"{role}_cert": str(signed.certificate), f"{role}_key": str(signed.key)}
    return Security(**{f"tls_{name}": value for name, value in names.items()})


@pytest.fixture(scope="module")
def scheduler(ours: Signed) -> Iterator[str]:
    """The address of a cluster that speaks nothing but TLS."""
    with LocalCluster(
        n_workers=3, processes=False, threads_per_worker=1, dashboard_address=":0",
        protocol="tls://", security=security(ours),
    ) as cluster:  # fmt: skip
        assert cluster.scheduler_address.startswith("tls://")
        yield cluster.scheduler_address


def job(files: Files, scheduler: str, folder: Path, **options: Any) -> JobConfig:
    places = {"model": str(files.model), "input": str(files.images)}
    output = str(folder / "out.zarr")
    return JobConfig(**places, output=output, scheduler=scheduler, progress=False, **options)


def test_a_job_runs_over_tls(files: Files, scheduler: str, ours: Signed, tmp_path: Path) -> None:
    summary = run(job(files, scheduler, tmp_path, **ours.options))
    assert summary.status == "complete"
    np.testing.assert_allclose(predictions(tmp_path / "out.zarr"), files.expected, atol=1e-5)


def test_the_command_takes_the_certificates(
    files: Files, scheduler: str, ours: Signed, tmp_path: Path
) -> None:
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in ours.options.items()]
    command = ["run", files.model, files.images, tmp_path / "out.zarr", "--scheduler", scheduler]
    result = fcdcc(*command, *flags)
    assert result.exit_code == 0, result.output


@pytest.mark.long
def test_the_advice_without_certificates_helps(
    files: Files, scheduler: str, ours: Signed, tmp_path: Path
) -> None:
    with pytest.raises(ClusterError, match="give tls_ca_file, tls_cert and tls_key, or set them"):
        run(job(files, scheduler, tmp_path))
    command = ["run", files.model, files.images, tmp_path / "out.zarr", "--scheduler", scheduler]
    refused = fcdcc(*command)
    assert refused.exit_code == 2
    assert (
        "give --tls-ca-file, --tls-cert and --tls-key, or set them in Dask's configuration"
        in refused.output
    )
    assert run(job(files, scheduler, tmp_path, **ours.options)).status == "complete"
    names = {
        "distributed.comm.tls.ca-file": str(ours.authority),
        "distributed.comm.tls.client.cert": str(ours.certificate),
        "distributed.comm.tls.client.key": str(ours.key),
    }
    with dask.config.set(names):
        done = fcdcc(*command, "--restart", "--scale", "none")
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize("kind", ["none", "another authority", "no encryption"])
def test_who_has_no_certificate_gets_nowhere(
    files: Files, scheduler: str, theirs: Signed, tmp_path: Path, kind: str
) -> None:
    options = theirs.options if kind == "another authority" else {}
    address = scheduler.replace("tls://", "tcp://") if kind == "no encryption" else scheduler
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "2s"}),
        pytest.raises(ClusterError, match="no Dask scheduler answers"),
    ):
        run(job(files, address, tmp_path, **options))
    assert not (tmp_path / "out.zarr").exists()


@pytest.mark.parametrize("kind", ["another authority", "no encryption"])
def test_a_worker_without_the_certificate_does_not_join(
    scheduler: str, ours: Signed, theirs: Signed, tmp_path: Path, kind: str
) -> None:
    async def join() -> None:
        wrong = security(theirs) if kind == "another authority" else None
        address = scheduler if wrong else scheduler.replace("tls://", "tcp://")
        worker = Worker(
            address, nthreads=1, security=wrong, local_directory=str(tmp_path),
            dashboard=False, death_timeout=3,
        )  # fmt: skip
        try:
            await asyncio.wait_for(worker, 6)
        finally:
            await worker.close(nanny=False)

    with Client(scheduler, security=security(ours), set_as_default=False) as client:
        before = len(client.scheduler_info(n_workers=-1)["workers"])
        with pytest.raises(Exception, match=r".*"):
            asyncio.run(join())
        assert len(client.scheduler_info(n_workers=-1)["workers"]) == before == 3
