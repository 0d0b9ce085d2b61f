"""Slow, stopped and killed workers: our runs beside plain Dask, tasks run twice, and no code.

Six worker processes over TCP run blocks of 64 × 64 images through four convolutions, one
thread each, at a pace that lets them behave like machines of their own (``pacing.py``). The
traces are those of a bad day: all healthy; a tenth of all shares ten times slower, many blocks
in flight and one at a time; two workers ten times slower throughout; two workers stopped, or
killed, after a third of the blocks. Every answer is compared with PyTorch's. ``without`` are
healthy, random, workers, killed and stopped on a cluster that does not have the plugin, where a
loop in the client waits for any k; Dask is then told to give up silent workers after
``--worker-ttl``.

    python benchmarks/stragglers.py [--traces healthy,random,…] [--splits images,rows]
        [--blocks 12] [--pairs 5] [--pace 4] [--json FILE]
    python benchmarks/stragglers.py --traces without [--without random,stopped]

All traces with both splits take a quarter of an hour on two cores; each can be had by itself.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from io import BytesIO
from itertools import islice, product
from pathlib import Path
from queue import Empty, SimpleQueue
from statistics import median
from typing import Any

import dask
import numpy as np
import torch
from dask._task_spec import Task
from distributed import Client, LocalCluster, as_completed, wait
from overheads import Callbacks, slicing
from pacing import Pacing, Stretch, set_trace
from torch import nn

from fcdcc.pipeline import open_model
from fcdcc.pipeline.anyk import AnyKPlugin, anyk_report, client_loop
from fcdcc.pipeline.anyk.scheduler.anyk_plugin import NAME
from fcdcc.pipeline.graph import Block, build_block
from fcdcc.pipeline.options import PlanOptions
from fcdcc.pipeline.planner.search import choose_plan
from fcdcc.pipeline.runtime.cluster import DASK_SETTINGS, PRELOAD
from fcdcc.pipeline.worker.executable import Executable
from fcdcc.pipeline.worker.executable_plugin import ExecutablePlugin, install, uninstall

SHAPE, BATCH, WORKERS, PARTS = (3, 64, 64), 48, 6, 4
WITHOUT = "ours, without the plugin"
FORMS: dict[str, dict[str, Any]] = {
    "uncoded strips": {"n": PARTS, "tolerate": 0, "redundancy": "off"},
    "ours, eager": {"tolerate": 2, "redundancy": "eager"},
    "ours, standby": {"tolerate": 2, "redundancy": "standby"},
    "ours, off": {"tolerate": 2, "redundancy": "off"},
    "ours, eager, γ = 3": {"tolerate": 3, "redundancy": "eager"},
    "ours, standby, γ = 3": {"tolerate": 3, "redundancy": "standby"},
    WITHOUT: {"tolerate": 2, "redundancy": "eager"},
}
TRACES = ("healthy", "random", "latency", "workers", "stopped", "killed", "slices")


def make_module() -> nn.Sequential:
    """Return four convolutions and a classifier, with seeded weights."""
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(3, 48, 3, padding=1), nn.ReLU(), nn.Conv2d(48, 48, 3, padding=1), nn.ReLU()),
        nn.MaxPool2d(2),
        *(nn.Conv2d(48, 96, 3, padding=1), nn.ReLU(), nn.Conv2d(96, 96, 3, padding=1), nn.ReLU()),
        *(nn.MaxPool2d(4), nn.Flatten(), nn.Linear(96 * 8 * 8, 10)),
    ).eval()


def make_images(block: int, start: int, stop: int, pad_to: int) -> Any:
    """Return images start … stop − 1 of a block, and zeros behind them."""
    images = np.random.default_rng(block).random((BATCH, *SHAPE), dtype=np.float32)[start:stop]
    return np.concatenate([images, np.zeros((pad_to - len(images), *SHAPE), np.float32)])


def predict(module: nn.Sequential, block: int, part: int) -> Any:
    """Run the whole module on a quarter of a block, as a user of plain Dask does."""
    each = BATCH // PARTS
    value = torch.from_numpy(make_images(block, part * each, (part + 1) * each, each))
    for number, layer in enumerate(module):
        label = ("", number, block, part)
        with Stretch(isinstance(layer, nn.Conv2d), label), torch.inference_mode():
            value = layer(value)
    return value.numpy()


def process_id() -> int:
    """Return the worker's process id."""
    return os.getpid()


class Bench:
    """A cluster, and the runs that are measured on it."""

    def __init__(self, cluster: LocalCluster, client: Client, options: argparse.Namespace) -> None:
        self.cluster, self.client, self.options = cluster, client, options
        self.module = make_module()
        stored = BytesIO()
        batch = ({0: torch.export.Dim("batch")},)
        example = torch.zeros(2, *SHAPE)
        torch.export.save(
            torch.export.export(self.module, (example,), dynamic_shapes=batch), stored
        )
        self.network = open_model(stored.getvalue()).network
        self.held: Any = None
        self.expected: dict[int, Any] = {}
        self.runs = 0
        self.submitting = 0.0
        """Seconds that it took to submit a block of the last run."""
        self.report: Mapping[str, Any] = {}

    # ------------------------------------------------------------------ running

    def trace(self, share: float = 0.0, workers: bool = False, seed: int | None = None) -> None:
        """Say what is slow from now on."""
        self.client.run(set_trace, share, workers, self.options.seed if seed is None else seed)

    def ours(
        self, split: str, form: str, blocks: int, in_flight: int = 8, then: Any = None,
        warm: bool = False,
    ) -> float:  # fmt: skip
        """Run blocks in one of our forms and return the seconds; ``report`` says what happened.

        With ``warm`` one more block is run before the clock does; it is the last by its number.
        """
        self.runs += 1
        run = f"run{self.runs}"
        executable, build = self.graphs(split, form, run)
        plugin = ExecutablePlugin(executable, run, 1)
        install(self.client, plugin)

        def submit(block: int) -> Any:
            tasks, last = build(block)
            if form == WITHOUT:
                return client_loop.submit(self.client, tasks, last, -block)
            return self.client.get(tasks, last, sync=False, priority=-block)

        if warm:
            submit(blocks).result()
        seconds = self._window(submit, blocks, in_flight, then)
        if form == WITHOUT:  # nobody counted anything
            uninstall(self.client, plugin)
            return seconds
        self.report = anyk_report(self.client, run)
        if self.report["workers_removed"] and then is None:
            print(f"  (healthy workers were removed: {self.report['workers_removed']})", flush=True)
        uninstall(self.client, plugin)
        return seconds

    def graphs(
        self, split: str, form: str, run: str
    ) -> tuple[Executable, Callable[[int], tuple[dict[Any, Any], Any]]]:
        """Return what the workers hold in one of our forms, and what makes the graph of a block."""
        options = {"n": 6, "split": split, "batch": BATCH, **FORMS[form]}
        plan = choose_plan(self.network, SHAPE, PlanOptions.of(**options))
        executable = Executable(self.network, plan)

        def build(block: int) -> tuple[dict[Any, Any], Any]:
            def reader(key: Any, start: int, stop: int, pad_to: int, _: Any = None) -> Task:
                return Task(key, make_images, block, start, stop, pad_to)

            given = Block(executable.ref, run, block, BATCH, reader)
            graph = build_block(self.network, plan, given)
            last = Task((f"write-{run}", 99, block, 0), np.array, graph.prediction)
            return {**graph.tasks, last.key: last}, last.key

        return executable, build

    def _window(
        self, submit: Callable[[int], Any], blocks: int, in_flight: int, then: Any
    ) -> float:
        """Keep so many blocks in flight; call ``then`` when a third is done."""
        self._expect(blocks)
        begin = time.perf_counter()
        submitting: list[float] = []
        finished: SimpleQueue[Any] = SimpleQueue()
        active: dict[Any, int] = {}
        upcoming = iter(range(blocks))
        for done in range(blocks):
            for block in islice(upcoming, in_flight - len(active)):
                start = time.perf_counter()
                fresh = submit(block)
                submitting.append(time.perf_counter() - start)
                active[fresh] = block
                fresh.add_done_callback(finished.put)
            try:
                future = finished.get(timeout=self.options.give_up)
            except Empty:
                print(f"  ({done} of {blocks} blocks)", flush=True)
                for future in active:
                    future.cancel()
                return float("inf")
            self._check(active.pop(future), future.result())
            if then is not None and done + 1 == blocks // 3:
                then()
        self.submitting = median(submitting)
        return time.perf_counter() - begin

    def plain(self, blocks: int, copies: int = 1, then: Any = None) -> float:
        """Run blocks as tasks that are each a whole network, once or twice, first wins."""
        workers = list(self.client.scheduler_info(n_workers=-1)["workers"])
        self.held = self.client.scatter(self.module, broadcast=True)  # anew: workers were lost
        self._expect(blocks)
        begin = time.perf_counter()
        futures: dict[Any, tuple[int, int]] = {}
        for number, (block, part) in enumerate(np.ndindex(blocks, PARTS)):
            for copy in range(copies):
                near = [workers[(number + 3 * copy) % len(workers)]] if copies > 1 else None
                future = self.client.submit(
                    predict, self.held, block, part, pure=False, workers=near,
                    allow_other_workers=copies > 1,
                )  # fmt: skip
                futures[future] = block, part
        answers: dict[tuple[int, int], Any] = {}
        try:
            for future in as_completed(list(futures), timeout=self.options.give_up):
                place = futures[future]
                if place not in answers and not future.cancelled():  # lost ones are made again
                    answers[place] = future.result(timeout=self.options.give_up)
                    if then is not None and len(answers) == blocks * PARTS // 3:
                        then()
                        then = None
                    others = [f for f, p in futures.items() if p == place and f is not future]
                    self.client.cancel(others, reason="another was first") if others else None
                if len(answers) == blocks * PARTS:
                    break
            seconds = time.perf_counter() - begin
        except TimeoutError:
            seconds = float("inf")
        if len(answers) < blocks * PARTS:
            statuses = sorted({future.status for future in futures})
            print(f"  ({len(answers)} of {blocks * PARTS} answers; {statuses})", flush=True)
            seconds = float("inf")
        for block in range(blocks if seconds < float("inf") else 0):
            self._check(block, np.concatenate([answers[block, part] for part in range(PARTS)]))
        return seconds

    def _expect(self, blocks: int) -> None:
        """Find the right answers, before the clock runs."""
        for block in range(len(self.expected), blocks):
            with torch.inference_mode():
                images = torch.from_numpy(make_images(block, 0, BATCH, BATCH))
                self.expected[block] = self.module(images).numpy()

    def _check(self, block: int, made: Any) -> None:
        error = np.linalg.norm(made - self.expected[block]) / np.linalg.norm(self.expected[block])
        assert error < 1e-4, (block, error)

    # ------------------------------------------------------------------- faults

    @contextmanager
    def losing(self, how: signal.Signals) -> Iterator[Callable[[], None]]:
        """Give a function that stops or kills two workers; afterwards there are six again."""
        pids = self.client.run(process_id)
        victims = [pids[address] for address in list(pids)[:2]]

        def lose() -> None:
            for pid in victims:
                os.kill(pid, how)

        try:
            yield lose
        finally:
            for pid in victims:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(1.0)
            self.client.wait_for_workers(WORKERS, timeout=120)


def extra_work(report: Mapping[str, Any]) -> float:
    """Return the work of parity, and of shares run again, relative to that of uncoded ones.

    Work is CPU time, which the pace makes the time that a share takes.
    """
    plain = more = 0.0
    seen: set[tuple[int, int, int]] = set()
    for record in report["timeline"]:
        place = record["layer"], record["block"], record["position"]
        taken = record["stop"] - record["start"]
        if record["stage"] == "parity" or place in seen:
            more += taken
        else:
            plain += taken
            seen.add(place)
    return more / plain


def spread(report: Mapping[str, Any]) -> tuple[float, float]:
    """Return the median of the layer times in seconds, and the 99th percentile relative to it."""
    taken: dict[int, list[float]] = {}
    for record in report["groups"]:
        if record["block"]:  # the first warms up
            taken.setdefault(record["layer"], []).append(record["stop"] - record["start"])
    ratios = [t / median(times) for times in taken.values() for t in times]
    typical = median(time for times in taken.values() for time in times)
    return typical, float(np.quantile(ratios, 0.99))


Rows = list[dict[str, Any]]


class Table:
    """What was measured, printed as it comes."""

    def __init__(self) -> None:
        self.rows: Rows = []

    def add(self, trace: str, split: str, what: str, seconds: float, **more: Any) -> float:
        """Add a line."""
        self.rows.append({"trace": trace, "split": split, "what": what, "seconds": seconds, **more})
        shown = "did not finish" if seconds == float("inf") else f"{seconds:6.2f} s"
        rest = "  ".join(f"{name} {value:.3g}" for name, value in more.items())
        print(f"  {trace:<9} {split:<7} {what:<22} {shown}  {rest}", flush=True)
        return seconds


def healthy(bench: Bench, table: Table, splits: list[str]) -> None:
    """Measure what redundancy costs when everything works."""
    blocks = bench.options.blocks
    bench.trace()
    base = table.add("healthy", "", "plain Dask", bench.plain(blocks))
    table.add("healthy", "", "every task twice", t := bench.plain(blocks, 2), to_plain=t / base)
    for split in splits:
        for form in ("uncoded strips", "ours, eager"):
            seconds = bench.ours(split, form, blocks)
            table.add("healthy", split, form, seconds, to_plain=seconds / base)
        ratios, extra, cpu = [], [], []
        for _ in range(bench.options.pairs):
            off = bench.ours(split, "ours, off", blocks)
            before, tasks = bench.callbacks.seconds, bench.tasks()
            standby = bench.ours(split, "ours, standby", blocks)
            cpu.append((bench.callbacks.seconds - before) / (bench.tasks() - tasks))
            extra.append(extra_work(bench.report))
            ratios.append(standby / off)
        table.add(
            "healthy", split, "ours, standby", standby, to_plain=standby / base,
            to_off=median(ratios), least=min(ratios), most=max(ratios),
            extra_work=median(extra), most_extra=max(extra), plugin_ms_per_task=1e3 * median(cpu),
        )  # fmt: skip


def random_shares(bench: Bench, table: Table, splits: list[str]) -> None:
    """Measure with a tenth of all shares ten times slower and many blocks in flight.

    Which shares are slow, and where, decides as much as the form does: so medians over seeds.
    """
    blocks, seeds = bench.options.blocks, range(1, 1 + bench.options.random_seeds)
    forms = ("uncoded strips", "ours, eager", "ours, standby")
    taken: dict[tuple[str, str], list[float]] = {}
    for seed in seeds:
        bench.trace(share=0.1, seed=seed)
        taken.setdefault(("", "plain Dask"), []).append(bench.plain(blocks))
        taken.setdefault(("", "every task twice"), []).append(bench.plain(blocks, 2))
        for split, form in product(splits, forms):
            taken.setdefault((split, form), []).append(bench.ours(split, form, blocks))
    for (split, what), seconds in taken.items():
        more = {}
        if what.startswith("ours"):
            bases = taken[split, "uncoded strips"]
            ratios = [ours / base for ours, base in zip(seconds, bases, strict=True)]
            more = {"to_uncoded": median(ratios), "least": min(ratios), "most": max(ratios)}
        table.add("random", split, what, median(seconds), **more)


def latency(bench: Bench, table: Table, splits: list[str]) -> None:
    """Measure with a tenth of all shares ten times slower, one block at a time."""
    bench.trace(share=0.1)
    for split in splits:
        for form in ("uncoded strips", "ours, eager", "ours, eager, γ = 3", "ours, standby"):
            seconds = bench.ours(split, form, 1 + bench.options.latency_blocks, in_flight=1)
            typical, worst = spread(bench.report)
            table.add("latency", split, form, seconds, layer_ms=1e3 * typical, p99_to_median=worst)


def slow_workers(bench: Bench, table: Table, splits: list[str]) -> None:
    """Measure with two of six workers ten times slower throughout."""
    blocks = bench.options.blocks
    bench.trace(workers=True)
    table.add("workers", "", "plain Dask", bench.plain(blocks))
    table.add("workers", "", "every task twice", bench.plain(blocks, 2))
    for split in splits:
        base = table.add(
            "workers", split, "uncoded strips", bench.ours(split, "uncoded strips", blocks)
        )
        for form in ("ours, eager", "ours, standby"):
            seconds = bench.ours(split, form, blocks)
            table.add("workers", split, form, seconds, to_uncoded=seconds / base)


def lost_workers(
    bench: Bench, table: Table, splits: list[str], trace: str, four: Mapping[str, float]
) -> None:
    """Measure with two of six workers stopped or killed after a third of the blocks."""
    how = signal.SIGSTOP if trace == "stopped" else signal.SIGKILL
    blocks = bench.options.long_blocks
    bench.trace()
    for split in splits:
        with bench.losing(how) as lose:
            seconds = bench.ours(split, "ours, standby", blocks, then=lose)
        table.add(trace, split, "ours, standby", seconds, to_four_healthy=seconds / four[split])
    for what, copies in (("plain Dask", 1), ("every task twice", 2)):
        with bench.losing(how) as lose:
            seconds = bench.plain(blocks, copies, lose)
        table.add(trace, "", what, seconds, to_four_healthy=seconds / four["plain"])


def without_plugin(options: argparse.Namespace, table: Table, splits: list[str]) -> None:
    """Measure the loop in the client under the same traces."""
    with cluster_of(WORKERS, options, plugin=False) as bench:
        for trace in options.without.split(","):
            bench.trace(share=0.1 if trace == "random" else 0.0, workers=trace == "workers")
            for split in splits:
                if trace in ("killed", "stopped"):
                    how = signal.SIGSTOP if trace == "stopped" else signal.SIGKILL
                    with bench.losing(how) as lose:
                        seconds = bench.ours(split, WITHOUT, options.long_blocks, then=lose)
                else:
                    seconds = bench.ours(split, WITHOUT, options.blocks)
                table.add(trace, split, WITHOUT, seconds)


@contextmanager
def cluster_of(workers: int, options: argparse.Namespace, plugin: bool = True) -> Iterator[Bench]:
    """Start worker processes that keep pace, with the any-k plugin or without it."""
    settings = {**DASK_SETTINGS, "distributed.deploy.lost-worker-timeout": "1h"}
    if not plugin:
        settings["distributed.scheduler.worker-ttl"] = options.worker_ttl
    with (
        dask.config.set(settings),
        LocalCluster(
            n_workers=workers, threads_per_worker=1, dashboard_address=":0",
            preload=PRELOAD, silence_logs=50,
        ) as cluster,
        Client(cluster) as client,
    ):  # fmt: skip
        client.wait_for_workers(workers, timeout=120)
        client.register_plugin(Pacing(options.pace, options.seed))
        bench = Bench(cluster, client, options)
        if plugin:
            client.register_plugin(AnyKPlugin())
            bench.callbacks = Callbacks(cluster.scheduler.plugins[NAME])
            bench.tasks = lambda: cluster.scheduler.n_tasks
        # filters are coded, libraries loaded
        bench.ours("images", "ours, standby" if plugin else WITHOUT, 3)
        wait(client.submit(process_id, pure=False))
        yield bench


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--traces", default=",".join(TRACES))
    parser.add_argument("--splits", default="images,rows")
    parser.add_argument("--blocks", type=int, default=12)
    parser.add_argument("--long-blocks", type=int, default=48, help="for stopped and killed")
    parser.add_argument("--latency-blocks", type=int, default=25)
    parser.add_argument("--give-up", type=float, default=30.0, help="without a block, in seconds")
    parser.add_argument("--without", default="healthy,random,workers,killed,stopped")
    parser.add_argument("--worker-ttl", default="15s", help="without the plugin")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--random-seeds", type=int, default=5)
    parser.add_argument("--pace", type=float, default=4.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    traces, splits = options.traces.split(","), options.splits.split(",")
    table, four = Table(), {}
    if "slices" in traces:
        cost = slicing(BATCH)
        table.add("slices", "", "four slices", 0.0, extra_cpu=cost)
    if {"stopped", "killed"} & set(traces):
        with cluster_of(4, options) as bench:
            blocks = options.long_blocks
            four["plain"] = table.add("four", "", "plain Dask", bench.plain(blocks))
            for split in splits:
                seconds = bench.ours(split, "ours, standby", blocks)
                four[split] = table.add("four", split, "ours, standby", seconds)
    if "without" in traces:
        without_plugin(options, table, splits)
    if set(traces) - {"slices", "without"}:
        with cluster_of(WORKERS, options) as bench:
            parts = {
                "healthy": healthy, "random": random_shares, "latency": latency,
                "workers": slow_workers,
            }  # fmt: skip
            for trace in traces:
                if trace in parts:
                    parts[trace](bench, table, splits)
                elif trace not in ("slices", "without"):
                    lost_workers(bench, table, splits, trace, four)
    if options.json:
        options.json.write_text(json.dumps({**vars(options), "rows": table.rows}, default=str))


if __name__ == "__main__":
    main()
