"""The weights of the networks of `infer` on clusters: sent once, there when needed, and removed.

Warnings are errors in these tests, and so is Dask's about a large graph where none is expected.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import torch
from distributed import Client, LocalCluster, Scheduler, Worker, WorkerPlugin, get_client
from distributed.protocol.pickle import dumps
from numpy.typing import NDArray
from torch import nn

from fcdcc.pipeline import Model, infer, open_model
from fcdcc.pipeline.anyk.queries import cluster_workers
from fcdcc.pipeline.worker import executable, graph_executables
from support.fork_server import worker_processes
from support.schedulers import own_cluster

SHAPE = (3, 16, 16)
MORE_THAN_A_GRAPH = 12 * 2**20
"""Bytes of weights, for which Dask warns if they are in a graph."""

pytestmark = pytest.mark.cluster

Pixels = NDArray[np.float32]


class Heavy(nn.Module):
    """Two small convolutions and a classifier with many weights."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        features = 8 * 8 * 8
        self.wide = nn.Linear(features, MORE_THAN_A_GRAPH // 4 // features)
        self.head = nn.Linear(self.wide.out_features, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.second(torch.relu(self.first(x))))
        return self.head(torch.relu(self.wide(torch.max_pool2d(x, 2).flatten(1))))


@pytest.fixture(autouse=True)
def own_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keep apart what earlier tests left in this process, and undo what clients leave.

    Clients that are not closed in reverse order leave a scheduler in Dask's configuration.
    """
    monkeypatch.setattr(executable, "_executables", {})
    before = dask.config.get("scheduler", None)
    yield
    if before is None:
        dask.config.config.pop("scheduler", None)
    else:
        dask.config.set(scheduler=before)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(3)
    batch = ({0: torch.export.Dim("batch")},)
    program = torch.export.export(Heavy().eval(), (torch.zeros(2, *SHAPE),), dynamic_shapes=batch)
    made = tmp_path_factory.mktemp("heavy") / "heavy.pt2"
    torch.export.save(program, made)
    return made


@pytest.fixture
def model(path: Path) -> Model:
    return open_model(path)


@pytest.fixture(scope="module")
def pixels() -> Pixels:
    return np.random.default_rng(2).random((11, *SHAPE), dtype=np.float32)


@pytest.fixture(scope="module")
def expected(path: Path, pixels: Pixels) -> Pixels:
    with torch.inference_mode():
        return torch.export.load(path).module()(torch.from_numpy(pixels)).numpy()


@pytest.fixture(scope="module")
def shared_processes() -> Iterator[LocalCluster]:
    """Worker processes for all tests that leave them as they were: each imports PyTorch once."""
    with two_processes() as made:
        yield made


def two_processes() -> LocalCluster:
    return LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0")


@pytest.fixture
def processes(shared_processes: LocalCluster) -> Iterator[LocalCluster]:
    yield shared_processes
    with Client(shared_processes, set_as_default=False) as witness:
        wait_for(lambda: plugins(witness) == [] and not any(kept(witness).values()))


@pytest.fixture
def own_processes() -> Iterator[LocalCluster]:
    """Worker processes of one test, which may kill them."""
    with two_processes() as made:
        yield made


@pytest.fixture(params=["processes", "threads"])
def cluster(request: pytest.FixtureRequest) -> Iterator[LocalCluster]:
    if request.param == "processes":
        yield request.getfixturevalue("processes")
        return
    with LocalCluster(
        processes=False, n_workers=2, threads_per_worker=1, dashboard_address=":0"
    ) as made:
        yield made


def lazy(model: Model, images: Any, **options: Any) -> Any:
    return infer(model, images, **{"batch": 4, "n": 3, "tolerate": 1, **options})


def assert_close(made: Any, expected: Any) -> None:
    error = np.linalg.norm(np.asarray(made) - expected) / np.linalg.norm(expected)
    assert error < 1e-5


def kept_here() -> list[str]:
    """Return the fingerprints of the executables that a process keeps."""
    return sorted(executable._executables)


def kept(client: Client) -> dict[str, list[str]]:
    return client.run(kept_here)


def plugins(client: Client) -> list[str]:
    """Return the names of the worker plugins that hold executables of graphs."""

    def names(dask_scheduler: Scheduler) -> list[str]:
        return [name for name in dask_scheduler.worker_plugins if "graph-executable" in name]

    return client.run_on_scheduler(names)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 100
    while not condition():
        gc.collect()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_weights_are_sent_once_and_no_graph_is_large(
    cluster: LocalCluster, model: Model, pixels: Pixels, expected: Pixels
) -> None:
    with Client(cluster) as client:
        made = lazy(model, pixels)
        (name,) = plugins(client)
        for _ in range(3):
            assert_close(made.compute(), expected)
        for _ in range(3):  # of another graph of the same executable
            assert_close(lazy(model, pixels[:8]).compute(), expected[:8])
        assert_close((lazy(model, pixels) + lazy(model, pixels, engine="eager")).compute(),
                     2 * expected)  # fmt: skip
        assert name in plugins(client)
        assert all(len(found) == 2 for found in kept(client).values())
        assert len(pickle.dumps(made)) > MORE_THAN_A_GRAPH
        assert graph_bytes(client, made) < 2**20


def graph_bytes(client: Client, made: Any) -> int:
    """Return the bytes of a graph as a client sends it."""
    sizes: list[int] = []
    send = client._send_to_scheduler

    def noting(message: dict[str, Any]) -> None:
        if message["op"] == "update-graph":
            sizes.append(sum(memoryview(f).nbytes for f in message["expr_ser"].frames))
        send(message)

    client._send_to_scheduler = noting
    try:
        made.compute()
    finally:
        client._send_to_scheduler = send
    (size,) = sizes
    return size


def in_main(block: Any) -> Any:
    return block + 1


def test_functions_of_scripts_and_other_ways_to_send_a_graph(
    processes: LocalCluster, model: Model, pixels: Pixels, expected: Pixels,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    with Client(processes) as client:
        made = lazy(model, pixels)
        monkeypatch.setattr(in_main, "__module__", "__main__")  # Dask pickles graphs twice for it
        monkeypatch.setattr(sys.modules["__main__"], "in_main", in_main, raising=False)
        assert_close(made.data.map_blocks(in_main).compute(), expected + 1)
        assert_close(client.compute(made).result(), expected)
        assert_close(client.submit(computed, made).result(), expected)
        first, second = dask.compute(made[:4], made.mean("class"))
        assert_close(first, expected[:4])
        assert_close(second, expected.mean(1))


def computed(made: Any) -> Any:
    return made.compute(scheduler="synchronous").values


def test_workers_that_come_later_and_those_that_died(
    own_processes: LocalCluster, model: Model, pixels: Pixels, expected: Pixels
) -> None:
    with Client(own_processes) as client:
        made = lazy(model, pixels)
        assert_close(made.compute(), expected)
        before = {*cluster_workers(client)}
        own_processes.scale(3)
        wait_for(lambda: bool(cluster_workers(client).keys() - before))
        wait_for(lambda: all(len(found) == 1 for found in kept(client).values()))
        before = {*client.run(os.getpid).values()}
        for process in worker_processes():
            if process.pid in before:
                process.kill()
        assert_close(made.compute(), expected)
        wait_for(lambda: not before & {*client.run(os.getpid).values()})
        wait_for(lambda: all(len(found) == 1 for found in kept(client).values()))


def test_persisted_results_are_computed_again_without_the_lazy_array(
    own_processes: LocalCluster, path: Path, pixels: Pixels, expected: Pixels
) -> None:
    with Client(own_processes) as client:
        persisted = lazy(open_model(path), pixels, batch=1).persist()
        client.gather(client.futures_of(persisted))
        gc.collect()  # nothing in this process needs the network any more
        holders = {a for found in client.who_has(persisted).values() for a in found}
        pids = client.run(os.getpid, workers=[min(holders)])
        os.kill(pids[min(holders)], signal.SIGKILL)
        wait_for(lambda: min(holders) not in cluster_workers(client))
        assert len(plugins(client)) == 1
        assert_close(persisted.compute(), expected)
        del persisted
        wait_for(lambda: plugins(client) == [] and not any(kept(client).values()))


def test_workers_forget_the_weights_when_nothing_refers_to_them(
    cluster: LocalCluster, path: Path, pixels: Pixels, expected: Pixels
) -> None:
    with Client(cluster) as client:
        before = kept(client)
        model = open_model(path)
        made, other = lazy(model, pixels), lazy(model, pixels, batch=2)
        assert len(plugins(client)) == 2
        assert_close(other.compute(), expected)
        future = client.compute(made)
        del made  # its graph may still be on the way, and the model's latest is another one
        assert_close(future.result(), expected)
        del future
        wait_for(lambda: len(plugins(client)) == 1)
        assert_close(other.compute(), expected)
        del other
        gc.collect()
        assert_close(lazy(model, pixels, batch=2).compute(), expected)
        assert len(plugins(client)) == 1  # for as long as the model is open
        del model
        wait_for(lambda: plugins(client) == [] and kept(client) == before)


def test_a_graph_that_cannot_be_pickled_does_not_keep_the_weights(
    cluster: LocalCluster, path: Path, pixels: Pixels, expected: Pixels,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    # pytest keeps what is logged, and with the traceback the lazy array.
    monkeypatch.setattr(logging.getLogger("distributed.protocol.pickle"), "disabled", True)
    with Client(cluster) as client:
        before = kept(client)
        made = lazy(open_model(path), pixels)
        assert_close(made.compute(), expected)
        with pytest.raises(TypeError, match="serialize"):
            dask.compute(made, dask.delayed(id)(threading.Lock()))
        assert_close(made.compute(), expected)
        del made
        wait_for(lambda: plugins(client) == [] and kept(client) == before)


def test_a_client_that_has_gone_does_not_replace_the_weights_of_another(
    processes: LocalCluster, path: Path, pixels: Pixels, expected: Pixels
) -> None:
    with Client(processes) as client:
        made = lazy(open_model(path), pixels)
        (name,) = plugins(client)
        ((fingerprint,),) = {tuple(found) for found in kept(client).values()}
        late = {
            "client": "gone", "use": "gone-1", "fingerprint": fingerprint,
            "name": "fcdcc-graph-executable-late", "plugin": dumps(WorkerPlugin()),
            "held_here": False,
        }  # fmt: skip
        with pytest.raises(RuntimeError, match="lost the connection"):
            client.sync(getattr(client.scheduler, graph_executables.INSTALL), **late)
        assert plugins(client) == [name]
        assert_close(made.compute(), expected)
        del made
        wait_for(lambda: plugins(client) == [] and not any(kept(client).values()))


def test_the_weights_go_with_the_client_that_sent_them(
    cluster: LocalCluster, model: Model, pixels: Pixels, expected: Pixels
) -> None:
    with Client(cluster, set_as_default=False) as witness:
        before = kept(witness)
        with Client(cluster) as first, Client(cluster, set_as_default=False) as second:
            made = lazy(model, pixels)
            (name,) = plugins(witness)
            with second.as_current():
                again = lazy(model, pixels)
            assert plugins(witness) == [name]
            persisted = second.persist(again)
            first.close()
            assert_close(second.gather(second.compute(persisted)), expected)
            assert_close(second.gather(second.compute(again)), expected)
            assert plugins(witness) == [name]
            del made, again
        wait_for(lambda: plugins(witness) == [] and kept(witness) == before)


def test_results_of_another_client_outlive_the_one_that_sent_the_weights(
    own_processes: LocalCluster, model: Model, pixels: Pixels, expected: Pixels
) -> None:
    """Dask computes a task once, from the graph that was the first to have it."""
    with (
        Client(own_processes, set_as_default=False) as other,
        Client(own_processes) as first,
    ):
        made = lazy(model, pixels, batch=1)
        persisted = first.persist(made)
        with pytest.warns(UserWarning, match="Sending large graph"):
            theirs = other.persist(made)  # the tasks are those of the first client
        other.gather(other.futures_of(theirs))
        del persisted
        first.close()
        pids = other.run(os.getpid)
        os.kill(pids[min(pids)], signal.SIGKILL)
        assert_close(other.gather(other.compute(theirs)), expected)


def test_another_client_gets_the_weights_with_the_graph(
    processes: LocalCluster, model: Model, pixels: Pixels, expected: Pixels
) -> None:
    with Client(processes):
        made = lazy(model, pixels)
        with (
            LocalCluster(n_workers=1, dashboard_address=":0") as elsewhere,
            Client(elsewhere, set_as_default=False) as other,
        ):
            with pytest.warns(UserWarning, match="Sending large graph"):
                result = other.compute(made)
            assert_close(result.result(), expected)
            assert not any(kept(other).values())
    with Client(processes), pytest.warns(UserWarning, match="Sending large graph"):
        assert_close(made.compute(), expected)


def test_a_pickled_array_contains_the_weights(
    cluster: LocalCluster, model: Model, pixels: Pixels, expected: Pixels, tmp_path: Path
) -> None:
    code = (
        "import pickle, sys, numpy as np\n"
        "made = pickle.load(open(sys.argv[1], 'rb'))\n"
        "np.save(sys.argv[2], made.compute(scheduler='synchronous').values)\n"
    )
    with Client(cluster):
        made = lazy(model, pixels)
        (tmp_path / "made.pickle").write_bytes(pickle.dumps(made))
        assert_close(made.compute(scheduler="processes", num_workers=1), expected)
        assert_close(made.compute(scheduler="threads"), expected)
        assert_close(made.compute(scheduler="synchronous"), expected)
    files = [str(tmp_path / name) for name in ("made.pickle", "made.npy")]
    subprocess.run([sys.executable, "-c", code, *files], check=True)
    assert_close(np.load(files[1]), expected)


def test_a_restarted_cluster_has_the_weights(
    own_processes: LocalCluster, model: Model, pixels: Pixels, expected: Pixels
) -> None:
    with Client(own_processes) as client:
        made = lazy(model, pixels)
        assert_close(made.compute(), expected)
        client.restart()
        assert_close(made.compute(), expected)


def test_a_client_that_was_connected_anew_sends_the_weights_again(
    processes: LocalCluster, model: Model, pixels: Pixels, expected: Pixels
) -> None:
    with Client(processes.scheduler_address, heartbeat_interval="50ms") as client:
        made = lazy(model, pixels)
        assert len(plugins(client)) == 1
        connection = client.scheduler_comm
        client.sync(_abort, connection)
        wait_for(lambda: client.status == "running" and client.scheduler_comm is not connection)
        wait_for(lambda: plugins(client) == [])
        with pytest.warns(UserWarning, match="Sending large graph"):
            assert_close(made.compute(), expected)
        assert_close(lazy(model, pixels).compute(), expected)


async def _abort(connection: Any) -> None:
    connection.comm.abort()


def test_a_scheduler_without_fcdcc_gets_the_weights_with_the_graph(
    own_processes: LocalCluster, model: Model, pixels: Pixels, expected: Pixels,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    async def fails(*_: Any, **__: Any) -> None:
        raise ModuleNotFoundError("fcdcc")

    monkeypatch.setattr(graph_executables.GraphExecutablesPlugin, "start", fails)
    with Client(own_processes) as client:
        made = lazy(model, pixels)
        assert plugins(client) == []
        with pytest.warns(UserWarning, match="Sending large graph"):
            assert_close(made.compute(), expected)


class Unloadable:
    """What worker processes, but not the one that pickled it, cannot unpickle."""

    def __init__(self) -> None:
        self.process = os.getpid()

    def __reduce__(self) -> Any:
        return _refuse, (os.getpid(),)


def _refuse(process: int) -> None:
    if os.getpid() != process:
        raise ModuleNotFoundError("no such module on this worker")


def test_workers_that_cannot_load_it_get_the_weights_with_the_graph(
    processes: LocalCluster, model: Model, pixels: Pixels, expected: Pixels,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(
        "fcdcc.pipeline.runtime.sent_executables.dumps", lambda _: dumps(Unloadable())
    )
    with Client(processes) as client:
        made = lazy(model, pixels)
        assert plugins(client) == []
        with pytest.warns(UserWarning, match="Sending large graph"):
            assert_close(made.compute(), expected)
        assert graph_executables.shared_memory == {}


@pytest.mark.long
def test_a_silent_worker_does_not_hold_up_the_call(
    own_processes: LocalCluster, model: Model, pixels: Pixels, expected: Pixels,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(graph_executables, "INSTALL_TIMEOUT_SECONDS", 10_000)
    with Client(own_processes) as client:
        pid = min(client.run(os.getpid).values())
        process = next(found for found in worker_processes() if found.pid == pid)
        process.suspend()
        try:
            made = lazy(model, pixels)
        finally:
            process.resume()
        assert_close(made.compute(), expected)
        wait_for(lambda: all(len(found) == 1 for found in kept(client).values()))


@pytest.mark.long
def test_a_cluster_of_other_processes(
    model: Model, pixels: Pixels, expected: Pixels, tmp_path: Path
) -> None:
    with own_cluster(tmp_path) as cluster:
        cluster.wait_for_workers()
        with Client(cluster.address) as client:
            made = lazy(model, pixels)
            for _ in range(2):
                assert_close(made.compute(), expected)
            assert all(len(found) == 1 for found in kept(client).values())
        with Client(cluster.address) as client:
            wait_for(lambda: plugins(client) == [] and not any(kept(client).values()))


@pytest.mark.long
def test_graphs_of_several_threads(
    own_processes: LocalCluster, model: Model, pixels: Pixels, expected: Pixels
) -> None:
    found: list[Any] = []

    def work(batch: int) -> None:
        found.extend(lazy(model, pixels, batch=batch).compute() for _ in range(3))

    with Client(own_processes) as client:
        threads = [threading.Thread(target=work, args=(batch,)) for batch in (4, 4, 5, 5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 12
        for made in found:
            assert_close(made, expected)
        wait_for(lambda: len(plugins(client)) == 1)  # the model's latest


def infer_there(path: Path, images: Pixels) -> Any:
    with get_client():
        return lazy(open_model(path), images).compute().values


@pytest.mark.long
def test_tasks_may_call_it(
    processes: LocalCluster, path: Path, pixels: Pixels, expected: Pixels
) -> None:
    with Client(processes) as client:
        assert_close(client.submit(infer_there, path, pixels).result(), expected)


def test_an_asynchronous_client_gets_the_weights_with_the_graph(
    model: Model, pixels: Pixels, expected: Pixels
) -> None:
    async def compute() -> Any:
        async with (
            LocalCluster(
                n_workers=1, processes=False, dashboard_address=":0", asynchronous=True
            ) as cluster,
            Client(cluster, asynchronous=True) as client,
        ):
            return await client.compute(lazy(model, pixels))

    with pytest.warns(UserWarning, match="Sending large graph"):
        assert_close(asyncio.run(compute()), expected)


def test_images_that_dask_computes_are_fused_as_ever(
    processes: LocalCluster, model: Model, pixels: Pixels, expected: Pixels
) -> None:
    with Client(processes):
        images = da.from_array(pixels, chunks=(11, *SHAPE))
        assert_close(lazy(model, images, n=1, tolerate=0, batch=11).compute(), expected)


def test_a_worker_without_the_weights_says_what_to_do(
    processes: LocalCluster, model: Model, pixels: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph_executables, "PATIENCE_SECONDS", 0.01)

    async def remove(dask_worker: Worker) -> None:
        for name in [n for n in dask_worker.plugins if "graph-executable" in n]:
            await dask_worker.plugin_remove(name)

    with Client(processes) as client:
        made = lazy(model, pixels)
        client.run(remove)
        with pytest.raises(executable.PlanError, match=r"call infer\(\) again"):
            made.compute()
