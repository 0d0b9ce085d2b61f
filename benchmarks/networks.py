"""Machines that reach each other over slow links: our forms beside plain data-parallel inference.

Eight hosts, each a network namespace of its own: a scheduler, a client and six workers of one
thread. Every link carries 100 Mbit/s each way, and a packet needs 5 ms from host to host. The same
blocks of the same stored images are run by plain Dask, by images, by rows and gathered after
every layer; rounds are interleaved. Then the same with one worker's link at 5 Mbit/s. Bytes are
those that hosts have received, headers and messages of the scheduler included. All hosts share
the cores of one machine and its disk: the images and the model are not part of what is measured.

It needs root, and Linux.

    python benchmarks/networks.py [--model vgg16] [--size 64] [--rounds 3] [--forms …]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import dask.config
import numpy as np
import zarr
from distributed import Client
from healthy import FORMS, Bench, one_thread
from models import MODELS, exported

from fcdcc.pipeline.anyk import AnyKPlugin
from fcdcc.pipeline.runtime.cluster import DASK_SETTINGS, PRELOAD
from fcdcc.storage import open_images

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.fork_server import use_fork_server
from support.network import Network, enter
from support.network_cluster import CLIENT, HOSTS, WORKERS, network_cluster

PLAIN = "plain Dask"
OURS = ("images standby", "rows standby", "gathered eager (CRME)")
SIZES = {"vgg16": 64, "resnet50": 112}
MBIT = 1e6 / 8
LINK = {"rate": 100 * MBIT, "delay": 0.0025}
"""Of a host to the switch; a packet passes two."""
SLOW_LINK = {"rate": 5 * MBIT}
KEEP_COPIES = {"distributed.scheduler.active-memory-manager.start": False}
"""Else the scheduler removes copies of plain Dask's module, and workers fetch it again."""


@dataclass(frozen=True)
class Round:
    """One measurement of one form."""

    seconds: float
    carried_bytes: int


def set_links(network: Network, slow: Mapping[str, Any]) -> None:
    """Give all hosts the usual links, one worker that of ``slow``."""
    for host in HOSTS:
        network.set(host, **LINK)
    network.set(WORKERS[0], **slow)


def measure(network: Network, work: Callable[[], object]) -> Round:
    """Return what some work costs."""
    before, start = sum(network.carried_bytes().values()), perf_counter()
    work()
    return Round(perf_counter() - start, sum(network.carried_bytes().values()) - before)


@contextmanager
def bench_of(name: str, options: argparse.Namespace, network: Network) -> Iterator[Bench]:
    """Start a cluster on the hosts; give its workers a network in all forms, over fast links."""
    size = options.size or SIZES[name]
    module = MODELS[name](size)
    shape = (options.blocks * options.batch, 3, size, size)
    preload = [option for name in PRELOAD for option in ("--preload", name)]
    with (
        TemporaryDirectory() as folder,
        network_cluster(
            network, Path(folder), worker_options=preload, settings=KEEP_COPIES
        ) as cluster,
        Client(cluster.address) as client,
    ):
        pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        zarr.create_array(
            f"{folder}/images.zarr",
            data=pixels,
            chunks=(options.batch, *shape[1:]),
            dimension_names=list("ncyx"),
        )
        client.run(one_thread)
        client.register_plugin(AnyKPlugin())
        source = open_images(f"{folder}/images.zarr")
        bench = Bench(client, module, exported(module, size).network, source, options.batch)
        for form in options.forms:
            bench.add(form, FORMS[form])
        yield bench
        bench.close()


def compare(name: str, options: argparse.Namespace, network: Network) -> None:
    """Measure one network, and print its tables."""
    with bench_of(name, options, network) as bench:
        work: dict[str, Callable[[], object]] = {PLAIN: bench.plain}
        work |= {form: lambda form=form: bench.ours(form) for form in options.forms}
        expected = bench.plain()
        for run in work.values():
            run()
        for what, slow in (("all links equal", LINK), ("one link of 5 Mbit/s", SLOW_LINK)):
            set_links(network, slow)
            rounds: dict[str, list[Round]] = {form: [] for form in work}
            for number in range(options.rounds):
                for form, run in work.items():
                    rounds[form].append(measure(network, run))
                    print(f"  round {number + 1}, {form}: {rounds[form][-1]}", flush=True)
            network.mend()
            print_table(f"{name}, {bench.source.image_shape}, {what}", bench.source.images, rounds)
        for form in options.forms:
            print(f"  {form}: relative error {bench.error(form, expected):.0e}")


def print_table(title: str, images: int, rounds: Mapping[str, list[Round]]) -> None:
    """Print a line for each form."""
    print(f"{title}: images a second, times plain Dask's (smallest to largest), MB for an image")
    for form, measured in rounds.items():
        pairs = zip(rounds[PLAIN], measured, strict=True)
        ratios = [plain.seconds / ours.seconds for plain, ours in pairs]
        seconds = median(each.seconds for each in measured)
        carried = median(each.carried_bytes for each in measured)
        print(
            f"  {form:<22} {images / seconds:6.2f}; "
            f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}); "
            f"{carried / images / 1e6:.2f}",
            flush=True,
        )


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=SIZES, nargs="+", default=list(SIZES))
    parser.add_argument("--size", type=int, help=f"pixels; by default {SIZES}")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--blocks", type=int, default=5)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=list(OURS))
    options = parser.parse_args()
    one_thread()
    use_fork_server()
    with Network(HOSTS) as network, dask.config.set(DASK_SETTINGS):
        enter(network.namespace(CLIENT))
        for name in options.model:
            compare(name, options, network)


if __name__ == "__main__":
    main()
