"""The first two of three mirrors: any-k nodes in a graph that has nothing to do with convolutions.

Every file is asked of three mirrors at once, and two answers that agree are enough. One mirror
hangs; nobody waits for it, and its tasks are told to stop.

    python examples/first_of_three_mirrors.py
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from dask._task_spec import Task, TaskRef
from distributed import Client, LocalCluster, Reschedule

from fcdcc.pipeline.anyk import AnyKPlugin, Share, any_k, wanted

MIRRORS = ("amsterdam", "bergen", "chennai")
HANGS = "bergen"


def fetch(mirror: str, file: str) -> tuple[str, int]:
    """Return a file's length, as a mirror says; one of them never answers."""
    still_wanted = wanted()
    until = time.monotonic() + (60.0 if mirror == HANGS else 0.05)
    while time.monotonic() < until:
        if not still_wanted():  # two others have answered
            raise Reschedule
        time.sleep(0.01)
    return file, 100 * len(file)


def agree(answers: Mapping[int, tuple[str, int]]) -> int:
    """Return the length that all answers agree on; ``answers`` holds those that are there."""
    ((_, length),) = set(answers.values())
    return length


def total(lengths: list[int]) -> int:
    """Return the length of all files."""
    return sum(lengths)


def make_graph(files: list[str]) -> dict[object, Task]:
    """Return the graph: three shares and an any-k node for every file, and their sum."""
    graph: dict[object, Task] = {}
    for file in files:
        shares = []
        for mirror in MIRRORS:
            key = f"fetch-{file}-{mirror}"
            graph[key] = Share(key, fetch, mirror, file)
            shares.append(key)
        graph[f"length-{file}"] = any_k(f"length-{file}", agree, shares, 2)
    lengths = [TaskRef(f"length-{file}") for file in files]
    graph["total"] = Task("total", lambda *lengths: total(list(lengths)), *lengths)
    return graph


def main() -> None:
    """Ask for ten files."""
    files = [f"file-{number}" for number in range(10)]
    with (
        LocalCluster(n_workers=6, threads_per_worker=1, processes=False, dashboard_address=None,
                     scheduler_kwargs={"dashboard": False}) as cluster,
        Client(cluster) as client,
    ):  # fmt: skip
        client.register_plugin(AnyKPlugin())
        start = time.monotonic()
        answer = client.get(make_graph(files), "total")
        seconds = time.monotonic() - start
    print(f"{len(files)} files, {answer} bytes, in {seconds:.1f} s: nobody waited for {HANGS}")


if __name__ == "__main__":
    main()
