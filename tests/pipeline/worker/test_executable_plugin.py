"""An executable reaches the workers: once per machine, and beside their heartbeats."""

from __future__ import annotations

import asyncio
import gc
import os
import pickle
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from distributed import Client, LocalCluster
from distributed.comm.core import CommClosedError

from fcdcc.pipeline import open_model, plan
from fcdcc.pipeline.anyk.queries import cluster_workers
from fcdcc.pipeline.worker import arrivals, executable, executable_plugin, packed_executable
from fcdcc.pipeline.worker.executable import Executable, find
from fcdcc.pipeline.worker.executable_plugin import (
    ExecutablePlugin,
    SilentWorkers,
    install,
    silent_workers,
    uninstall,
)
from support.fork_server import worker_processes
from support.small import Files

linux = pytest.mark.skipif(sys.platform != "linux", reason="memory is shared on Linux only")

SLOW = """
import os, time
open({begun!r} + str(os.getpid()), "w").close()
while not os.path.exists({flag!r}):
    time.sleep(0.01)
"""


@pytest.fixture(scope="module")
def made(files: Files) -> Executable:
    model = open_model(files.model)
    return Executable(model.network, plan(model, str(files.images), n=3, tolerate=1))


@pytest.fixture
def cluster() -> Iterator[Client]:
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0") as local,
        Client(local, set_as_default=False) as client,
    ):
        yield client


def weights(ref: Any) -> dict[str, list[float]]:
    """Return the weights that a process keeps."""
    return {name: t.flatten().tolist() for name, t in find(ref).network.tensors.items()}


def last_seen(client: Client) -> list[float]:
    """Return when the scheduler last heard of each worker."""
    return [worker["last_seen"] for worker in cluster_workers(client).values()]


def import_from(folder: str) -> None:
    sys.path.insert(0, folder)


@linux
def test_shared_weights_do_not_travel_and_stay_as_they_are(made: Executable) -> None:
    packed = packed_executable.pack(made, same_machine=True)
    alone = packed_executable.pack(made, same_machine=False)
    size = sum(tensor.nbytes for tensor in made.network.tensors.values())
    assert len(pickle.dumps(alone, 5)) > size > 0
    assert len(pickle.dumps(packed, 5)) <= len(pickle.dumps(alone, 5)) - size
    for way in (packed, *(pickle.loads(pickle.dumps(found, 5)) for found in (packed, alone))):
        found = way.unpack().network.tensors
        assert found.keys() == made.network.tensors.keys()
        for name, tensor in found.items():
            assert torch.equal(tensor, made.network.tensors[name])
            tensor.zero_()  # in this copy alone
    assert any(bool(t.any()) for t in packed.unpack().network.tensors.values())


@linux
def test_shared_weights_are_there_as_long_as_they_are_referred_to(made: Executable) -> None:
    packed = packed_executable.pack(made, same_machine=True)
    shared, kept = packed.shared, packed.unpack()
    assert shared is not None
    del packed
    with pytest.raises(OSError, match=str(shared.descriptor)):
        shared.open()
    assert torch.equal(*(next(iter(e.network.tensors.values())) for e in (kept, made)))


def test_a_task_waits_for_an_executable_that_is_being_loaded(made: Executable) -> None:
    arriving = arrivals.begin(made.fingerprint)
    found: list[Executable] = []
    task = threading.Thread(target=lambda: found.append(find(made.ref)))
    task.start()
    ref = executable.hold(made)
    arrivals.end(made.fingerprint, arriving)
    task.join()
    executable.drop(ref)
    assert found == [made]
    with pytest.raises(executable.PlanError, match="holds no executable"):
        find(ref)


@pytest.mark.cluster
@pytest.mark.parametrize("same_machine", [True, False])
def test_every_worker_has_the_weights_until_the_run_is_over(
    made: Executable, cluster: Client, same_machine: bool
) -> None:
    plugin = ExecutablePlugin(made, "r", 1)
    install(cluster, plugin, same_machine=same_machine)
    executable.hold(made)
    expected = weights(made.ref)
    executable.drop(made.ref)
    assert list(cluster.run(weights, made.ref).values()) == [expected] * 2
    uninstall(cluster, plugin)
    with pytest.raises(executable.PlanError, match="holds no executable"):
        cluster.run(weights, made.ref)


@pytest.mark.cluster
def test_a_task_waits_for_an_executable_that_is_still_to_come(
    made: Executable, cluster: Client
) -> None:
    ref = executable.ExecutableRef(made.fingerprint, patience_seconds=10_000)
    first = min(cluster_workers(cluster))
    waiting = cluster.submit(weights, ref, workers=[first])
    wait_for(lambda: waiting.key in cluster.processing()[first])
    install(cluster, ExecutablePlugin(made, "r", 1))
    assert waiting.result().keys() == made.network.tensors.keys()


@linux
@pytest.mark.cluster
def test_workers_that_cannot_reach_the_memory_get_the_weights_themselves(
    made: Executable, cluster: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getpid", lambda: 2**22 + 1)  # no process has this id
    plugin = ExecutablePlugin(made, "r", 1)
    install(cluster, plugin, same_machine=True)
    assert plugin.packed is not None
    assert plugin.packed.shared is None
    assert len(cluster.run(weights, made.ref)) == 2


@pytest.mark.cluster
@pytest.mark.long
def test_heartbeats_go_on_while_workers_import_and_load(
    made: Executable, cluster: Client, tmp_path: Path
) -> None:
    flag = tmp_path / "go-on"
    module = tmp_path / "slow_to_import.py"
    module.write_text(SLOW.format(begun=str(tmp_path / "begun-"), flag=str(flag)))
    cluster.run(import_from, str(tmp_path))
    plugin = ExecutablePlugin(made, "r", 1, ("slow_to_import",))
    installing = threading.Thread(target=install, args=(cluster, plugin))
    installing.start()
    try:
        wait_for(lambda: len([*tmp_path.glob("begun-*")]) == 2)
        for _ in range(3):
            before = max(last_seen(cluster))
            wait_for(lambda then=before: min(last_seen(cluster)) > then)
        assert installing.is_alive()
    finally:
        flag.touch()
        installing.join()
    assert len(cluster.run(weights, made.ref)) == 2


@pytest.mark.cluster
def test_a_stopped_worker_is_not_waited_for(
    made: Executable, cluster: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executable_plugin, "INSTALL_TIMEOUT_SECONDS", 10_000)
    stopped = cluster.run(os.getpid).popitem()
    process = next(found for found in worker_processes() if found.pid == stopped[1])
    process.suspend()
    try:
        plugin = ExecutablePlugin(made, "r", 1)
        silent = install(cluster, plugin)
        assert [*silent] == [stopped[0]]
        others = [address for address in cluster_workers(cluster) if address != stopped[0]]
        assert len(cluster.run(weights, made.ref, workers=others)) == 1
    finally:
        process.resume()
    wait_until_loaded(SilentWorkers(cluster, plugin, silent))
    assert len(cluster.run(weights, made.ref)) == 2


@pytest.mark.cluster
def test_a_worker_that_answers_later_gets_the_weights_although_the_message_was_given_up(
    made: Executable, cluster: Client
) -> None:
    local: Any = cluster.cluster
    first, other = cluster_workers(cluster)
    broadcast = local.scheduler.broadcast

    async def to_the_other(**arguments: Any) -> Any:
        return await broadcast(**arguments, workers=[other])

    plugin = ExecutablePlugin(made, "r", 1)
    local.scheduler.broadcast = to_the_other
    install(cluster, plugin, same_machine=True)
    local.scheduler.broadcast = broadcast
    wait_until_loaded(SilentWorkers(cluster, plugin, [first]))
    assert len(cluster.run(weights, made.ref)) == 2
    uninstall(cluster, plugin)


def wait_until_loaded(silent: SilentWorkers) -> None:
    def have_loaded() -> bool:
        silent.look()
        return not silent.addresses

    wait_for(have_loaded)


@pytest.mark.cluster
def test_two_workers_that_die_while_a_plugin_is_removed_print_nothing(made: Executable) -> None:
    """One error of theirs would be raised, and the other never be retrieved."""
    never_retrieved: list[Any] = []
    with (
        LocalCluster(n_workers=3, threads_per_worker=1, dashboard_address="127.0.0.1:0") as local,
        Client(local, set_as_default=False) as client,
    ):
        loop = client.loop.asyncio_loop

        def note() -> None:
            loop.set_exception_handler(lambda _, context: never_retrieved.append(context))

        loop.call_soon_threadsafe(note)
        plugin = ExecutablePlugin(made, "r", 1)
        install(client, plugin)
        pids = [*client.run(os.getpid).values()][:2]
        dying = [process for process in worker_processes() if process.pid in pids]
        for process in dying:
            process.suspend()
        asked = threading.Event()
        broadcast = local.scheduler.broadcast

        async def noting(**arguments: Any) -> Any:
            loop.call_later(0.2, asked.set)  # the messages are on their way then
            return await broadcast(**arguments)

        local.scheduler.broadcast = noting
        removal = threading.Thread(target=uninstall, args=(client, plugin))
        removal.start()
        assert asked.wait(100)
        for process in dying:
            process.kill()
        removal.join(100)
        assert not removal.is_alive()
        assert plugin.name not in local.scheduler.worker_plugins
    gc.collect()
    assert never_retrieved == []


def wait_for(condition: Any) -> None:
    deadline = time.monotonic() + 100
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_on_a_large_cluster_workers_whose_heartbeats_are_rare_are_not_silent() -> None:
    heard = {f"tcp://{number}:1": 100.0 - 4.0 * number / 600 for number in range(600)}
    assert silent_workers(heard) == set()
    assert silent_workers({**heard, "tcp://stopped:1": 50.0}) == {"tcp://stopped:1"}
    assert silent_workers({"tcp://a:1": 10.0, "tcp://b:1": 6.5}) == {"tcp://b:1"}


@pytest.mark.cluster
def test_a_worker_that_loads_slowly_is_not_sent_the_weights_again(
    made: Executable, cluster: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executable_plugin, "RESEND_AFTER_LOOKS", 1)
    local: Any = cluster.cluster
    first, _ = cluster_workers(cluster)
    plugin = ExecutablePlugin(made, "r", 1)
    install(cluster, plugin)
    silent = SilentWorkers(cluster, plugin, [first])
    monkeypatch.setattr(executable_plugin, "READY", "not there yet")  # as while it loads
    handlers: Any = local.scheduler.handlers
    broadcast, operations = handlers["broadcast"], []

    async def noted(**arguments: Any) -> Any:
        answers = await broadcast(**arguments)
        operations.append(arguments["msg"]["op"])
        return answers

    handlers["broadcast"] = noted
    silent.look()
    wait_for(lambda: bool(operations))
    silent.look()
    wait_for(lambda: len(operations) > 1)
    assert operations == ["run", "run"]


def test_an_interrupted_request_leaves_no_error_that_asyncio_logs() -> None:
    """Ctrl-C leaves the request on its own, and closing the client then ends it with an error."""
    logged: list[dict[str, Any]] = []

    class Closing:
        """A scheduler whose connection closes while it answers."""

        async def register_worker_plugin(self) -> None:
            await asyncio.sleep(0)
            raise CommClosedError("the client is closed")

    class Interrupted:
        scheduler = Closing()

        def sync(self, request: Callable[[], Any]) -> None:
            async def interrupt() -> None:
                asyncio.get_running_loop().set_exception_handler(
                    lambda _, what: logged.append(what)
                )
                task = asyncio.ensure_future(request())
                await asyncio.sleep(0)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                await asyncio.sleep(0.01)
                del task
                gc.collect()

            asyncio.run(interrupt())

    executable_plugin._request_all_workers(
        cast("Client", Interrupted()), "register_worker_plugin", 10.0
    )
    assert logged == []
