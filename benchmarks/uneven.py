"""Workers of different speeds, and workers that leave and join: our runs beside plain Dask.

Six worker processes over TCP at speeds 1, 1, 1/2, 1/2, 1/4, 1/4: tasks are stretched in proportion
to the CPU time that they took (``pacing.py``). The bound is the work that the blocks are without
redundancy, as it was measured on the workers, divided by the sum of the speeds: nobody can be
faster. Then six equal workers of which two leave in an orderly way at a third of the run, when two
others have joined. Every answer is compared with PyTorch's.

    python benchmarks/uneven.py [--parts speeds,changing] [--blocks 48] [--pace 4] [--pairs 1]
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from statistics import median
from typing import Any

import dask
import torch
from distributed import Client, LocalCluster
from pacing import Pacing
from stragglers import Bench

from fcdcc.pipeline.anyk import AnyKPlugin
from fcdcc.pipeline.anyk.scheduler.anyk_plugin import NAME
from fcdcc.pipeline.runtime.cluster import PRELOAD

SPEEDS = {"0": 1.0, "1": 1.0, "2": 0.5, "3": 0.5, "4": 0.25, "5": 0.25}
FORM = "ours, standby"


@contextmanager
def cluster_of(speeds: Mapping[str, float], options: argparse.Namespace) -> Iterator[Bench]:
    """Start worker processes of these speeds, with the plugin."""
    settings = {
        "distributed.comm.timeouts.connect": "10s",
        "distributed.deploy.lost-worker-timeout": "1h",
    }
    with (
        dask.config.set(settings),
        LocalCluster(
            n_workers=6, threads_per_worker=1, dashboard_address=":0", preload=PRELOAD,
            silence_logs=50,
        ) as cluster,
        Client(cluster) as client,
    ):  # fmt: skip
        client.wait_for_workers(6, timeout=120)
        client.register_plugin(Pacing(options.pace, options.seed, speeds))
        client.register_plugin(AnyKPlugin())
        bench = Bench(cluster, client, options)
        bench.ours("images", FORM, 6, in_flight=options.in_flight)  # speeds are learned
        yield bench


def work(bench: Bench, speeds: Mapping[str, float]) -> float:
    """Return the seconds at speed 1 that the plain shares of the last run were."""
    speed_of = {a: speeds.get(str(worker["name"]), 1.0) for a, worker in info(bench).items()}
    return sum(
        (record["stop"] - record["start"]) * speed_of.get(record["worker"], 1.0)
        for record in bench.report["timeline"]
        if record["stage"] == "share" and record["state"] == "done"
    )


def info(bench: Bench) -> dict[str, Any]:
    """Return what the scheduler says of its workers."""
    return dict(bench.client.scheduler_info(n_workers=-1)["workers"])


def uneven(options: argparse.Namespace) -> None:
    """Measure with workers of different speeds."""
    print("speeds", " ".join(f"{speed:g}" for speed in SPEEDS.values()))
    with cluster_of(SPEEDS, options) as bench:
        plain, ours, works = [], [], []
        for _ in range(options.pairs):
            ours.append(bench.ours("images", FORM, options.blocks, in_flight=options.in_flight))
            works.append(work(bench, SPEEDS))
            tell(bench)
            plain.append(bench.plain(options.blocks))
        bound = median(works) / sum(SPEEDS.values())
        print(f"  bound                {bound:6.2f} s")
        for what, times in (("ours, standby", ours), ("plain Dask", plain)):
            seconds = median(times)
            print(f"  {what:<20} {seconds:6.2f} s  {seconds / bound:5.2f} of the bound", flush=True)


def tell(bench: Bench) -> None:
    """Print what was learned, and who did what."""
    paces = bench.cluster.scheduler.plugins[NAME].state.workers.by_address
    done: dict[str, int] = {}
    for record in bench.report["timeline"]:
        if record["state"] == "done":
            done[record["worker"]] = done.get(record["worker"], 0) + 1
    names = {address: worker["name"] for address, worker in info(bench).items()}
    shown = (
        f"{names[a]}: pace {paces[a].pace:.2f}, {done.get(a, 0)} shares"
        for a in sorted(paces, key=lambda a: str(names[a]))
    )
    print("  " + "; ".join(shown))
    print(f"  {bench.report['counters']}", flush=True)


@contextmanager
def joiners(bench: Bench, count: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Start processes that will be workers: each waits for a line before it joins."""
    program = (
        "import sys, fcdcc.pipeline.worker.kernels; sys.stdin.readline();"
        "from distributed.cli.dask_worker import main;"
        "main(sys.argv[1:], standalone_mode=False)"
    )
    address = bench.cluster.scheduler_address
    path = os.pathsep.join(filter(None, sys.path))  # the plugins are in this folder
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, address, "--nthreads", "1", "--no-nanny",
             "--name", f"fresh{number}", "--no-dashboard"],
            stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path},
        )
        for number in range(count)
    ]  # fmt: skip
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.wait()


def changing(options: argparse.Namespace) -> None:
    """Measure with two workers that join and two that leave at a third of the run."""
    print("two workers leave in order, two join")
    with cluster_of({}, options) as bench:
        still = [bench.ours("images", FORM, options.blocks, in_flight=options.in_flight)]
        with joiners(bench, 2) as fresh:

            def change() -> None:
                for process in fresh:
                    process.stdin.write(b"\n")
                    process.stdin.flush()
                bench.client.wait_for_workers(8, timeout=60)
                old = [a for a, w in info(bench).items() if str(w["name"]) in ("0", "1")]
                if options.leave == "retire":
                    bench.client.retire_workers(old, close_workers=True)
                else:
                    pids = bench.client.run(os.getpid, workers=old)
                    for pid in pids.values():
                        os.kill(pid, signal.SIGTERM)

            changer = threading.Thread(target=change)
            moved = bench.ours(
                "images", FORM, options.blocks, in_flight=options.in_flight, then=changer.start
            )
            changer.join()
            counts = bench.report["counters"]
            again = attempts(bench.report)
            print(
                f"  lost {counts['shares_lost']}, lost workers {counts['workers_lost']},"
                f" shares computed again {again}, parity started {counts['parity_started']}"
            )
            names = sorted(str(worker["name"]) for worker in info(bench).values())
            print(f"  workers at the end: {names}")
            still.append(bench.ours("images", FORM, options.blocks, in_flight=options.in_flight))
        print(f"  undisturbed {still[0]:6.2f} s before, {still[1]:6.2f} s after")
        print(
            f"  changing    {moved:6.2f} s  {moved / median(still):5.2f} of undisturbed", flush=True
        )


def attempts(report: Mapping[str, Any]) -> int:
    """Return how many shares were computed to the end twice."""
    seen: dict[tuple[int, int, int], int] = {}
    for record in report["timeline"]:
        if record["state"] == "done":
            place = record["layer"], record["block"], record["position"]
            seen[place] = seen.get(place, 0) + 1
    return sum(count - 1 for count in seen.values())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", default="speeds,changing")
    parser.add_argument("--blocks", type=int, default=48)
    parser.add_argument("--in-flight", type=int, default=8)
    parser.add_argument("--pairs", type=int, default=1)
    parser.add_argument("--pace", type=float, default=4.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--give-up", type=float, default=120.0, help="on plain Dask, in seconds")
    parser.add_argument("--leave", choices=("retire", "SIGTERM"), default="retire")
    options = parser.parse_args()
    torch.set_num_threads(1)
    parts = options.parts.split(",")
    if "speeds" in parts:
        uneven(options)
    if "changing" in parts:
        changing(options)


if __name__ == "__main__":
    main()
