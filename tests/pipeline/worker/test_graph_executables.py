"""What a scheduler knows of the executables of graphs, when things happen at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any

import pytest
from distributed import Scheduler
from distributed.scheduler import ClientState

from fcdcc.pipeline.worker import graph_executables
from fcdcc.pipeline.worker.executable import ExecutableRef
from fcdcc.pipeline.worker.graph_executables import (
    INSTALL,
    ExecutableUse,
    GraphExecutablesPlugin,
)

ERROR = {"tcp://worker": {"status": "error"}}
"""Responses of workers that could not load an executable."""


def with_scheduler(
    test: Callable[[Scheduler, GraphExecutablesPlugin], Coroutine[Any, Any, None]],
) -> None:
    """Run a test with a scheduler that knows two clients and has no workers."""

    async def run() -> None:
        async with Scheduler(host="127.0.0.1", port=0, dashboard_address=":0") as scheduler:
            plugin = GraphExecutablesPlugin()
            await scheduler.register_scheduler_plugin(plugin, idempotent=True)
            for client in ("first", "second"):
                scheduler.clients[client] = ClientState(client)
            await test(scheduler, plugin)

    asyncio.run(run())


def install(scheduler: Scheduler, client: str) -> asyncio.Task[dict[str, Any]]:
    """Ask for the same executable as all others that call this, by a plugin of one's own."""
    asked = scheduler.handlers[INSTALL](
        client=client, use=f"{client}-1", fingerprint="of-both", name=f"plugin-of-{client}",
        plugin=b"", held_here=False,
    )  # fmt: skip
    return asyncio.ensure_future(asked)


def test_clients_that_waited_for_what_failed_install_it_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fails = asyncio.Event()
    sent: list[str] = []

    async def send(plugin: GraphExecutablesPlugin, name: str, _: bytes) -> dict[str, Any]:
        plugin._scheduler.worker_plugins[name] = b""
        sent.append(name)
        if len(sent) > 1:
            await asyncio.sleep(0)
            return {}
        await fails.wait()
        return ERROR

    async def test(scheduler: Scheduler, _: GraphExecutablesPlugin) -> None:
        scheduler.clients["third"] = ClientState("third")
        first = install(scheduler, "first")
        await asyncio.sleep(0)
        others = [install(scheduler, client) for client in ("second", "third")]
        await asyncio.sleep(0)
        fails.set()
        assert (await first)["responses"] == ERROR
        assert {(await other)["plugin"] for other in others} == {"plugin-of-second"}
        assert sent == ["plugin-of-first", "plugin-of-second"]
        for client in ("second", "third"):
            scheduler.remove_client(client)
        while any(name in scheduler.worker_plugins for name in sent[1:]):
            await asyncio.sleep(0)

    monkeypatch.setattr(GraphExecutablesPlugin, "_send", send)
    with_scheduler(test)


def test_a_scheduler_that_closes_during_an_installation_that_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def send(plugin: GraphExecutablesPlugin, *_: Any) -> dict[str, Any]:
        await plugin.close()
        return ERROR

    async def test(scheduler: Scheduler, _: GraphExecutablesPlugin) -> None:
        assert (await install(scheduler, "first"))["responses"] == ERROR
        assert graph_executables._uses == {}

    monkeypatch.setattr(GraphExecutablesPlugin, "_send", send)
    with_scheduler(test)


def test_a_graph_that_arrives_while_others_are_forgotten_is_not_lost() -> None:
    use = ExecutableUse("first", is_released=True)
    arriving = ExecutableRef("of-both")

    class Tasks(dict[str, Any]):
        """Tasks of a scheduler, where a graph arrives when one looks for any."""

        def get(self, key: str, default: Any = None) -> Any:
            use.add(arriving)
            return super().get(key, default)

    scheduler: Any = SimpleNamespace(tasks=Tasks(), clients={"first"})
    use.add(ExecutableRef("of-both"))
    (graph,) = use.graphs
    graph.tasks = [SimpleNamespace(key="forgotten")]
    assert not use.is_over(scheduler)
    assert [left.ref() for left in use.graphs] == [arriving]
