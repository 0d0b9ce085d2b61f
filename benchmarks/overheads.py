"""What the plugin's callbacks and the slices of a share cost; used by ``stragglers.py``."""

from __future__ import annotations

import time
from typing import Any

import torch

from fcdcc.coding import CodedConv, ConvGeometry, make_code


class Callbacks:
    """The CPU time that the plugin spends in its hooks, without what Dask does for it there."""

    def __init__(self, plugin: Any) -> None:
        self.seconds, self._depth = 0.0, 0
        for name in ("update_graph", "transition", "add_worker", "remove_worker"):
            self._measure(plugin, name, 1.0)
        for name in ("_settle", "_tick", "_update_running_workers"):
            self._measure(plugin, name, 1.0)
        self._measure(plugin, "_follow", -1.0)
        plugin._clock.callback = plugin._tick  # it has kept the unmeasured method

    def _measure(self, plugin: Any, name: str, sign: float) -> None:
        function = getattr(plugin, name)

        def measured(*args: Any, **kwargs: Any) -> Any:
            outer, self._depth = self._depth, 1 if sign > 0 else 0
            start = time.thread_time()
            try:
                return function(*args, **kwargs)
            finally:
                taken = time.thread_time() - start
                if (sign > 0 and not outer) or (sign < 0 and outer):
                    self.seconds += sign * taken
                self._depth = outer

        setattr(plugin, name, measured)


def slicing(images: int) -> float:
    """Return what four slices cost more than one, by the shortest of many interleaved runs."""
    torch.set_num_threads(1)
    code = make_code("systematic", n=6, k_a=16, k_b=1)
    conv = CodedConv(ConvGeometry.of((32, 64, 64), (32, 32, 3, 3), padding=1), code, "images")
    given, weight = torch.rand(images, 32, 64, 64), torch.rand(32, 32, 3, 3)
    value, filters = conv.encode_input(given, 0), conv.encode_filters(weight, 0)
    shortest = {1: float("inf"), 4: float("inf")}
    for _ in range(80):
        for slices in shortest:
            start = time.thread_time()
            with torch.inference_mode():
                conv.convolve(value, filters, 0, wanted=lambda: True, slices=slices)
            shortest[slices] = min(shortest[slices], time.thread_time() - start)
    return shortest[4] / shortest[1] - 1.0
