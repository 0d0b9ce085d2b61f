"""The plugin on a cluster of threads, with the validation of Dask's scheduler and workers on."""

from __future__ import annotations

import logging
import pickle
from collections import Counter
from itertools import combinations
from operator import add, itemgetter
from pathlib import Path
from time import sleep
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
from dask._task_spec import List, Task, TaskRef
from dask.highlevelgraph import HighLevelGraph
from distributed import Client, Future, Worker
from distributed.core import Status

from fcdcc.pipeline.anyk import AnyK, AnyKPlugin, Share, any_k, anyk_alive, anyk_forget, anyk_report
from fcdcc.pipeline.anyk.keys import task_key
from fcdcc.pipeline.anyk.queries import REPORT
from support.anyk_cluster import VALIDATION, Errors, Running, threaded_cluster
from support.anyk_graphs import (
    ENOUGH,
    GraphOf,
    N,
    append,
    blind_share,
    decode,
    do_nothing,
    fail,
    gathered,
    in_parts,
    make_input,
)


def submit(client: Client, graph: GraphOf) -> list[Future]:
    futures: list[Future] = client.get(graph.tasks, graph.results, sync=False)
    return futures


def compute(client: Client, graph: GraphOf) -> list[tuple[float, tuple[int, ...]]]:
    return [future.result(timeout=120) for future in submit(client, graph)]


def log(what: object, path: str, _: object) -> object:
    """Append a line to a file, slowly, so that tasks could change their order."""
    sleep(0.02)
    return append(what, path)


def take_tasks(yes: bool, dask_worker: Worker) -> None:
    """Let a worker take tasks, or pause it, whatever memory it uses."""
    pause = dask.config.get("distributed.worker.memory.pause")
    dask_worker.memory_manager.memory_pause_fraction = pause if yes else False
    dask_worker.status = Status.running if yes else Status.paused


def closed(folder: Path, positions: Any, block: int = 0) -> dict[int, str]:
    """Return files that do not exist: shares wait for them."""
    return {position: str(folder / f"{block}-{position}") for position in positions}


@pytest.mark.long
def test_300_times_nobody_waits_for_a_share_that_does_not_come(
    running: Running, tmp_path: Path
) -> None:
    for block, missing in enumerate([*combinations(range(N), N - ENOUGH)] * 10):
        [(number, there)] = compute(running.client, gathered(block, closed(tmp_path, missing)))
        assert number == block
        assert there == tuple(p for p in range(N) if p not in missing)
    counters = running.report()["counters"]
    assert counters["groups"] == counters["decodes"] == 150
    assert counters["erasures"] == 300


def test_what_other_workers_wait_for_runs_before_shares(running: Running, tmp_path: Path) -> None:
    logged = str(tmp_path / "log")
    graph = GraphOf(0)
    read = task_key("read", "r", 0, 0)
    graph.tasks[read] = Task(read, str, tmp_path)
    for position in range(N):
        encode = task_key("encode", "r", 0, 0, position)
        graph.tasks[encode] = Task(encode, log, position, logged, TaskRef(read))
        share = task_key("share" if position < ENOUGH else "parity", "r", 0, 0, position)
        graph.tasks[share] = Share(share, log, "share", logged, TaskRef(encode))
        graph.shares[position] = share
    node = task_key("decode", "r", 0, 0)
    graph.tasks[node] = AnyK(node, len, graph.shares, ENOUGH)
    [worker, *_] = running.scheduler.workers
    assert running.client.get(graph.tasks, node, workers=[worker]) >= ENOUGH
    first = Path(logged).read_text().splitlines()[:N]
    assert sorted(first) == [str(position) for position in range(N)]
    assert set(first[ENOUGH:]) == {"4", "5"}, "tasks that serve parity alone were not last"


@pytest.mark.long
def test_many_blocks_in_flight_with_slow_shares_everywhere(running: Running) -> None:
    # Slow, not stuck: as many stuck shares as threads would leave no thread for anything.
    pairs = list(combinations(range(N), N - ENOUGH))
    futures = [submit(running.client, gathered(b, slow=pairs[b % 15])) for b in range(45)]
    for block, [future] in enumerate(futures):
        number, there = future.result(timeout=120)
        assert number == block
        assert len(there) >= ENOUGH
    del futures, future
    running.wait_until_empty()
    counters = running.report()["counters"]
    assert counters["groups"] == 45
    assert counters["erasures"] >= 45


def test_a_share_that_was_given_up_frees_its_thread(running: Running, tmp_path: Path) -> None:
    compute(running.client, gathered(0, closed(tmp_path, (2, 5))))
    records = running.report()["timeline"]
    left = [record["worker"] for record in records if record["state"] == "erased"]
    assert len(left) == 2
    for worker in left:
        task = running.client.submit(do_nothing, workers=[worker], pure=False)
        assert task.result(timeout=60) is None
        del task


def test_the_timeline_has_the_worker_and_the_times_of_every_share(
    running: Running, tmp_path: Path
) -> None:
    for block in range(6):
        compute(running.client, gathered(block, closed(tmp_path, (1,))))
    report = running.report()
    workers = {block: Counter[str]() for block in range(6)}
    positions: dict[str, set[int]] = {}
    for record in report["timeline"]:
        assert record["stop"] >= record["start"]
        assert record["stage"] == "share"
        assert record["layer"] == 0
        assert record["state"] in ("done", "erased")
        workers[record["block"]][record["worker"]] += 1
        positions.setdefault(record["worker"], set()).add(record["position"])
    # The shares of a block are on different workers, and no worker always has the same position.
    assert all(set(counts.values()) == {1} for counts in workers.values())
    assert all(len(seen) > 1 for seen in positions.values())
    assert [g["block"] for g in report["groups"]] == list(range(6))
    assert all(g["solved"] and g["stop"] >= g["start"] for g in report["groups"])


def test_blocks_without_slow_shares_have_the_same_results(running: Running) -> None:
    futures = [submit(running.client, gathered(block)) for block in range(20)]
    for block, [future] in enumerate(futures):
        number, there = future.result(timeout=120)
        assert number == block
        assert len(there) >= ENOUGH
    del futures, future


def test_a_part_runs_when_its_own_share_is_done(running: Running, tmp_path: Path) -> None:
    gates = closed(tmp_path, range(1, N))
    futures = submit(running.client, in_parts(0, gates))
    assert futures[0].result(timeout=120) == (0.0, (0,))
    for gate in gates.values():
        Path(gate).touch()
    assert [future.result(timeout=120)[0] for future in futures] == [0.0] * ENOUGH
    del futures
    running.wait_until_empty()
    assert running.report()["counters"]["groups"] == 1


def test_shares_whose_workers_take_no_tasks_run_on_one_that_does(
    running: Running, tmp_path: Path
) -> None:
    gate = str(tmp_path / "gate")
    graph: dict[str, Task] = {"in": Task("in", blind_share, 1, 0, gate)}
    graph |= {f"s{p}": Share(f"s{p}", add, TaskRef("in"), p) for p in range(N)}
    graph["out"] = any_k("out", len, [f"s{p}" for p in range(N)], ENOUGH)
    future = running.client.get(graph, "out", sync=False)
    running.wait_until(Path(f"{gate}.begun").exists, "the input is being made")
    scheduler = running.scheduler
    placed = {next(iter(scheduler.tasks[f"s{p}"].worker_restrictions)) for p in range(N)}
    assert len(placed) == N
    try:
        running.client.run(take_tasks, False)
        running.wait_until(lambda: not scheduler.running, "no worker takes tasks")
        Path(gate).touch()
        running.wait_until(lambda: len(scheduler.unrunnable) == N, "all shares wait for a worker")
        running.client.run(take_tasks, True, workers=[min(placed)])
        assert future.result(timeout=60) >= ENOUGH
    finally:
        running.client.run(take_tasks, True)
    running.check()


def test_parity_on_standby_does_not_run_while_nothing_is_late(
    running: Running, later: object
) -> None:
    futures = [submit(running.client, in_parts(block, seconds=0.05)) for block in range(12)]
    for block, parts in enumerate(futures):
        for position, part in enumerate(parts):
            assert part.result(timeout=120) == (float(block), (position,))
    del futures, parts, part
    running.wait_until_empty()
    counters = running.report()["counters"]
    assert counters["groups"] == 12
    assert counters["decodes"] == 0
    assert all(record["stage"] != "parity" for record in running.report()["timeline"])
    assert counters["parity_started"] == 0


def test_parity_on_standby_replaces_a_late_share(
    running: Running, tmp_path: Path, later: Any
) -> None:
    futures = submit(running.client, in_parts(0, closed(tmp_path, (2,))))
    answers = {p: futures[p].result(timeout=120) for p in (0, 1, 3)}
    assert answers == {p: (0.0, (p,)) for p in (0, 1, 3)}
    assert running.report()["counters"]["parity_started"] == 0
    later.now = True
    number, there = futures[2].result(timeout=120)
    assert number == 0.0
    assert 2 not in there
    assert len(there) >= ENOUGH
    counters = running.report()["counters"]
    assert counters["parity_started"] == 1  # one for one late share
    assert counters["decodes"] == counters["groups"] == 1
    assert counters["erasures"] >= 1
    del futures


def test_images_are_read_where_their_shares_are(
    running: Running, tmp_path: Path, later: object
) -> None:
    graph = in_parts(0, closed(tmp_path, range(N)))
    reads = {p: task_key("read", "r", 0, 0, p) for p in range(ENOUGH)}
    graph.tasks |= {read: Task(read, make_input, 0) for read in reads.values()}
    for position, share in graph.shares.items():
        old = graph.tasks[share]
        source = TaskRef(reads[position]) if position in reads else first_of(reads.values())
        graph.tasks[share] = Share(share, old.func, source, *old.args[1:])
    futures = submit(running.client, graph)
    tasks = running.scheduler.tasks
    running.wait_until(
        lambda: all(getattr(tasks.get(r), "state", "") == "memory" for r in reads.values()),
        "all is read",
    )
    running.wait_until(
        lambda: all(tasks[graph.shares[p]].processing_on for p in reads), "all shares have workers"
    )
    places = {p: {w.address for w in tasks[read].who_has} for p, read in reads.items()}
    shares = {p: {tasks[graph.shares[p]].processing_on.address} for p in reads}
    assert places == shares
    assert len({address for addresses in places.values() for address in addresses}) == ENOUGH
    for gate in closed(tmp_path, range(N)).values():
        Path(gate).touch()
    assert [future.result(timeout=120)[0] for future in futures] == [0.0] * ENOUGH
    del futures


def test_strips_are_prepared_where_their_shares_are(
    running: Running, tmp_path: Path, later: object
) -> None:
    graph = in_parts(0, closed(tmp_path, range(N)))
    read = task_key("read", "r", 0, 0, 0)
    graph.tasks[read] = Task(read, make_input, 0)
    glue: dict[int, Any] = {}
    for position in range(ENOUGH):
        rows, first, second = (
            task_key("halo", "r", 0, 0, ENOUGH - position),
            task_key("glue", "r", 0, 0, position),
            task_key("glue", "r", 1, 0, position),
        )
        graph.tasks[rows] = Task(rows, np.copy, TaskRef(read))
        graph.tasks[first] = Task(first, np.copy, TaskRef(rows))
        beside = task_key("glue", "r", 0, 0, max(position - 1, 0))  # the whole strip of a neighbour
        graph.tasks[second] = Task(second, add, TaskRef(first), TaskRef(beside))
        glue[position] = second
    for position, share in graph.shares.items():
        old = graph.tasks[share]
        source = TaskRef(glue[position]) if position in glue else first_of(glue.values())
        graph.tasks[share] = Share(share, old.func, source, *old.args[1:])
    futures = submit(running.client, graph)
    tasks = running.scheduler.tasks
    running.wait_until(
        lambda: all(getattr(tasks.get(key), "state", "") == "memory" for key in glue.values()),
        "the strips are there",
    )
    shares = {p: {tasks[graph.shares[p]].processing_on.address} for p in glue}
    assert {p: {w.address for w in tasks[key].who_has} for p, key in glue.items()} == shares
    for gate in closed(tmp_path, range(N)).values():
        Path(gate).touch()
    assert [future.result(timeout=120)[0] for future in futures] == [0.0] * ENOUGH
    del futures


def test_a_cancelled_block_leaves_nothing_behind(running: Running, tmp_path: Path) -> None:
    for build in (gathered, in_parts):
        futures = submit(running.client, build(0, closed(tmp_path, range(3))))
        running.wait_until(
            lambda: any(t.state == "processing" for t in running.scheduler.tasks.values()),
            "a share runs",
        )
        running.client.cancel(futures)
        running.wait_until_empty()
        running.wait_until(lambda: not any(held(running)), "no worker holds or runs anything")
        del futures
    assert compute(running.client, gathered(1))[0][0] == 1.0


def held(running: Running) -> list[Any]:
    return [w.state.tasks or w.data for w in running.cluster.workers.values()]


def test_survivors_that_are_lost_before_decoding_are_computed_again(
    running: Running, tmp_path: Path, later: object
) -> None:
    graph = gathered(0, closed(tmp_path, (4, 5)), seconds=0.05)
    node = graph.results[0]
    gate = tmp_path / "decoding"
    graph.tasks[node] = AnyK(node, decode_when, graph.shares, ENOUGH, str(gate))
    [future] = submit(running.client, graph)
    tasks = running.scheduler.tasks
    running.wait_until(
        lambda: node in tasks and tasks[node].state == "processing", "the node has its shares"
    )
    survivor = tasks[graph.shares[0]]
    running.cluster.sync(lose_data, running.scheduler, survivor)
    running.wait_until(lambda: running.report()["counters"]["shares_lost"], "it is lost")
    gate.touch()
    assert future.result(timeout=120) == (0.0, (0, 1, 2, 3))
    del future


def decode_when(there: Any, gate: str) -> Any:
    from time import sleep

    while not Path(gate).exists():
        sleep(0.01)
    return decode(there)


async def lose_data(scheduler: Any, task: Any) -> None:
    """Remove a result from all its workers, as if they had lost it."""
    free = {"op": "free-keys", "keys": [task.key], "stimulus_id": "lost"}
    for worker in list(task.who_has):
        scheduler.stream_comms[worker.address].send(free)
        scheduler.release_worker_data(task.key, worker.address, "lost")


def first_of(keys: Any) -> Any:
    return Task(None, itemgetter(0), List(*(TaskRef(key) for key in keys)))


def test_a_share_that_other_tasks_need_is_not_given_up(running: Running, tmp_path: Path) -> None:
    graph = gathered(0, closed(tmp_path, (0, 5)))
    also = task_key("glue", "r", 0, 0)
    graph.tasks[also] = Task(also, itemgetter(0), TaskRef(graph.shares[0]))
    futures = running.client.get(graph.tasks, [*graph.results, also, graph.shares[5]], sync=False)
    assert futures[0].result(timeout=120) == (0.0, (1, 2, 3, 4))
    assert running.report()["counters"]["erasures"] == 0
    for gate in closed(tmp_path, (0, 5)).values():
        Path(gate).touch()
    assert futures[1].result(timeout=120) == 0.0
    assert futures[2].result(timeout=120).tolist() == [0.0] * 8
    del futures


def test_a_share_on_standby_that_a_client_needs_runs(running: Running) -> None:
    graph = in_parts(0)
    parity = graph.shares[N - 1]
    future = running.client.get(graph.tasks, [parity], sync=False)
    assert future[0].result(timeout=120).tolist() == [0.0] * 8
    both = running.client.get(in_parts(1).tasks, [*in_parts(1).results], sync=False)
    assert len([part.result(timeout=120) for part in both]) == ENOUGH
    del future, both


def test_a_graph_that_is_submitted_again_leaves_nothing_behind(
    running: Running, tmp_path: Path
) -> None:
    graph = gathered(0, closed(tmp_path, (1, 3)))
    first = submit(running.client, graph)
    assert first[0].result(timeout=120) == (0.0, (0, 2, 4, 5))
    logging.getLogger("distributed.scheduler").setLevel(logging.ERROR)  # it warns, as it should
    again = key = None
    try:
        key = task_key("glue", "r", 0, 0)
        graph.tasks[key] = Task(key, itemgetter(1), TaskRef(graph.results[0]))
        again = running.client.get(graph.tasks, [key], sync=False)
        assert again[0].result(timeout=120) == (0, 2, 4, 5)
    finally:
        logging.getLogger("distributed.scheduler").setLevel(logging.WARNING)
    known = set(running.scheduler.tasks)
    assert not known & {graph.shares[1], graph.shares[3]}
    del first, again


def test_shares_of_a_block_that_is_released_are_no_erasures(
    running: Running, tmp_path: Path
) -> None:
    futures = submit(running.client, gathered(0, closed(tmp_path, range(1, N))))
    running.wait_until(
        lambda: len(running.report()["timeline"]) == 1, "one share of the group is done"
    )
    del futures
    running.wait_until_empty()
    counters = running.report()["counters"]
    assert counters["erasures"] == counters["groups"] == 0


def test_a_share_that_raises_raises_at_the_client(running: Running, tmp_path: Path) -> None:
    graph = gathered(0, closed(tmp_path, range(3)))
    broken = graph.shares[4]
    graph.tasks[broken] = Share(broken, fail, TaskRef(task_key("read", "r", 0, 0)), 4)
    futures = submit(running.client, graph)
    with pytest.raises(ArithmeticError, match="share 4 cannot be computed"):
        futures[0].result(timeout=120)
    futures[0].release()  # its traceback keeps it alive
    running.wait_until_empty()
    compute(running.client, gathered(1))
    running.errors.messages = [m for m in running.errors.messages if "ArithmeticError" not in m]


@pytest.mark.parametrize("kept", [True, False], ids=["shares", "plain tasks"])
def test_an_optimised_dask_array(running: Running, tmp_path: Path, kept: bool) -> None:
    graph = gathered(3, closed(tmp_path, (0, 4)))
    tasks = dict(graph.tasks)
    if not kept:  # tasks that Dask may merge with their neighbours and rename
        for key in graph.shares.values():
            share = tasks[key]
            source = (f"copy-{key[3]}", 0)
            tasks[source] = Task(source, np.copy, TaskRef(task_key("read", "r", 0, 3)))
            tasks[key] = Task(key, share.func, TaskRef(source), *share.args[1:])
    tasks["first", 0] = Task(("first", 0), itemgetter(0), TaskRef(graph.results[0]))
    tasks["decoded", 0] = Task(("decoded", 0), np.atleast_1d, TaskRef(("first", 0)))
    layer = HighLevelGraph.from_collections("decoded", tasks, ())
    array = (da.Array(layer, "decoded", chunks=((1,),), dtype=float) + 1.0) * 2.0
    assert array.compute(scheduler=running.client).tolist() == [8.0]
    running.wait_until_empty()
    assert running.report()["counters"]["groups"] == 1
    assert running.report()["counters"]["erasures"] == (2 if kept else 0)


def test_workers_that_the_user_chose_are_respected(running: Running) -> None:
    graph = gathered(0)
    address = next(iter(running.scheduler.workers))
    [future] = running.client.get(graph.tasks, graph.results, workers=[address], sync=False)
    assert future.result(timeout=120)[0] == 0.0
    assert {record["worker"] for record in running.report()["timeline"]} == {address}
    del future


def test_keys_of_any_kind_work(running: Running, tmp_path: Path) -> None:
    gate = str(tmp_path / "closed")
    for number in range(3):
        keys = [f"share{number}-{p}" for p in range(3)]
        tasks: dict[Any, Any] = {
            key: Task(key, _wait_for, gate if p == number else None, p)
            for p, key in enumerate(keys)
        }
        name = f"sum{number}"
        tasks[name] = any_k(name, dict, keys, 2)
        expected = {p: p for p in range(3) if p != number}
        assert running.client.get(tasks, name) == expected
    assert running.report("")["counters"]["groups"] == 3


def _wait_for(gate: str | None, position: int) -> int:
    from support.anyk_graphs import make_share

    return int(make_share(np.ones(1), position, gate)[0]) - 1


def test_registering_again_changes_nothing(running: Running, tmp_path: Path) -> None:
    futures = submit(running.client, gathered(0, closed(tmp_path, range(1, N))))
    running.wait_until(lambda: len(running.report()["timeline"]) == 1, "one share is done")
    plugin = running.plugin
    running.client.register_plugin(AnyKPlugin(silent_after=99))
    assert running.plugin is plugin
    for gate in closed(tmp_path, range(1, N)).values():
        Path(gate).touch()
    assert futures[0].result(timeout=120)[0] == 0.0
    del futures


def test_history_is_kept_per_run_until_it_is_dropped(running: Running) -> None:
    for run in ("one", "two"):
        compute(running.client, gathered(0, run=run))
    running.wait_until_empty()
    for run in ("one", "two"):
        report = anyk_report(running.client, run)
        assert report["counters"]["groups"] == 1
        assert len(report["timeline"]) == N
        assert not anyk_report(running.client, run, timeline=False)["timeline"]
    anyk_forget(running.client, "one")
    assert anyk_report(running.client, "one")["timeline"] == []
    assert len(anyk_report(running.client, "two")["timeline"]) == N
    assert anyk_report(running.client, "never")["counters"]["groups"] == 0


def test_an_error_in_a_hook_is_reported_and_harms_no_task(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(event: object) -> None:
        raise ZeroDivisionError("made to fail")

    with monkeypatch.context() as patch:
        patch.setattr(running.plugin.state, "handle", broken)
        assert running.client.submit(do_nothing, pure=False).result() is None
        graph = gathered(0)
        assert compute(running.client, graph) == [(0.0, tuple(range(N)))]
    assert any("made to fail" in failure for failure in running.report()["failures"])
    assert any("made to fail" in message for message in running.errors.messages)
    running.plugin.failures.texts.clear()
    running.plugin.failures.count = 0
    running.errors.messages.clear()


def test_a_pickled_plugin_keeps_its_settings() -> None:
    with dask.config.set({"fcdcc.anyk.silent-after": "7s", "fcdcc.anyk.grace": 20}):
        plugin = pickle.loads(pickle.dumps(AnyKPlugin()))
    assert (plugin.rule.silent_after, plugin.rule.grace) == (7.0, 20.0)
    plugin = pickle.loads(pickle.dumps(AnyKPlugin(silent_after="2s", grace=9)))
    assert (plugin.rule.silent_after, plugin.rule.grace) == (2.0, 9.0)
    assert plugin.idempotent


# ------------------------------------------------------------- clusters of their own


@pytest.fixture
def fresh(errors: Errors) -> Any:
    """Six workers without the plugin, for tests that change the cluster."""
    with (
        dask.config.set(VALIDATION),
        threaded_cluster(6) as cluster,
        Client(cluster) as client,
    ):
        yield Running(cluster, client, errors)


def test_without_the_plugin_every_share_is_waited_for(fresh: Running) -> None:
    for build in (gathered, in_parts):
        graph = build(4)
        assert compute(fresh.client, graph) == [(4.0, tuple(range(N)))] * len(graph.results)
    level = logging.getLogger("distributed.core").level
    logging.getLogger("distributed.core").setLevel(logging.ERROR)  # it warns of unknown handlers
    assert anyk_report(fresh.client, "r")["counters"] == {}
    assert anyk_alive(fresh.client) == {}
    logging.getLogger("distributed.core").setLevel(level)
    assert fresh.errors.messages == []


def test_a_plugin_that_is_registered_late_takes_up_running_graphs(
    errors: Errors, tmp_path: Path
) -> None:
    with (
        dask.config.set(VALIDATION),
        threaded_cluster(2, threads=N) as cluster,
        Client(cluster) as client,
    ):
        running = Running(cluster, client, errors)
        futures = submit(client, gathered(0, closed(tmp_path, (4, 5))))
        running.wait_until(
            lambda: [t.state for t in running.scheduler.tasks.values()].count("memory") == 5,
            "the input and all shares but two are there",
        )
        client.register_plugin(AnyKPlugin())
        assert futures[0].result(timeout=120) == (0.0, (0, 1, 2, 3))
        del futures
        running.wait_until_empty()
        running.check()


def test_workers_that_leave_and_join_in_the_middle(fresh: Running) -> None:
    client, cluster = fresh.client, fresh.cluster
    client.register_plugin(AnyKPlugin())
    graphs = [gathered(block, seconds=0.05, decode_seconds=0.05) for block in range(30)]
    futures = [submit(client, graph) for graph in graphs]
    futures[0][0].result(timeout=120)
    names = [worker.address for worker in cluster.workers.values()]
    for address in names[:2]:
        cluster.sync(
            fresh.scheduler.remove_worker, address, close=True, stimulus_id="handle-worker-cleanup"
        )
    cluster.scale(6)
    for block, [future] in enumerate(futures):
        number, there = future.result(timeout=120)
        assert number == block
        assert len(there) >= ENOUGH
    del futures, future
    fresh.wait_until_empty()
    report = fresh.report()
    assert report["workers_lost"] == names[:2]
    assert report["counters"]["workers_lost"] == 2
    assert report["counters"]["groups"] == 30
    fresh.check(losses=True)


def test_a_share_is_lost_with_its_worker_though_another_has_joined(
    fresh: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, cluster = fresh.client, fresh.cluster
    client.register_plugin(AnyKPlugin())
    graph = gathered(0, closed(tmp_path, range(1, N)))
    [future] = submit(client, graph)
    tasks, first = fresh.scheduler.tasks, graph.shares[0]
    fresh.wait_until(lambda: first in tasks and tasks[first].state == "memory", "it is done")
    [worker] = tasks[first].who_has
    joined = fresh.plugin.add_worker
    with monkeypatch.context() as patch:
        patch.setattr(fresh.plugin, "add_worker", lambda **_: None)  # not reported yet
        cluster.scale(7)
        fresh.wait_until(lambda: len(fresh.scheduler.workers) == 7, "another has joined")
        [other] = {*fresh.scheduler.workers} - {*fresh.plugin.state.workers.by_address}
        cluster.sync(
            fresh.scheduler.remove_worker, worker.address, stimulus_id="handle-worker-cleanup"
        )
    cluster.sync(call, joined, fresh.scheduler, other)
    found = [r for r in fresh.report()["timeline"] if r["position"] == 0 and r["state"] != "done"]
    assert [(r["worker"], r["state"]) for r in found[:1]] == [(worker.address, "lost")]
    for path in closed(tmp_path, range(1, N)).values():
        Path(path).touch()
    number, there = future.result(timeout=120)
    assert number == 0
    assert len(there) >= ENOUGH
    del future
    fresh.wait_until_empty()
    fresh.check(losses=True)


async def call(function: Any, *arguments: Any) -> None:
    """Call a function in the scheduler's thread."""
    function(*arguments)


def test_the_plugin_can_be_replaced(fresh: Running, tmp_path: Path) -> None:
    fresh.client.register_plugin(AnyKPlugin())
    compute(fresh.client, gathered(0, closed(tmp_path, (1,))))
    fresh.client.unregister_scheduler_plugin("fcdcc-anyk")
    assert compute(fresh.client, gathered(1)) == [(1.0, tuple(range(N)))]
    fresh.client.register_plugin(AnyKPlugin(silent_after=5))
    assert fresh.plugin.rule.silent_after == 5
    compute(fresh.client, gathered(2, closed(tmp_path, (1,))))
    fresh.wait_until_empty()
    fresh.check()
    held = submit(fresh.client, in_parts(3, closed(tmp_path, (0,), block=3)))
    assert held[1].result(timeout=120)[0] == 3.0
    fresh.client.unregister_scheduler_plugin("fcdcc-anyk")
    fresh.client.register_plugin(AnyKPlugin())
    Path(tmp_path / "3-0").touch()
    assert held[0].result(timeout=120)[0] == 3.0
    del held
    fresh.wait_until_empty()
    fresh.check()
    assert REPORT in fresh.scheduler.handlers


def test_with_fewer_workers_than_shares_all_have_equally_many(errors: Errors) -> None:
    with (
        dask.config.set(VALIDATION),
        threaded_cluster(3) as cluster,
        Client(cluster) as client,
    ):
        small = Running(cluster, client, errors)
        client.register_plugin(AnyKPlugin())
        assert compute(client, gathered(0, enough=N))[0][0] == 0.0
        workers = Counter(record["worker"] for record in small.report()["timeline"])
        assert list(workers.values()) == [2, 2, 2]
        small.wait_until_empty()
        small.check()


def test_the_decode_function_of_these_tests() -> None:
    assert decode({0: np.full(1, 3.0), 4: np.full(1, 15.0)}) == (3.0, (0, 4))
