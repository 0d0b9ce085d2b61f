"""Extra work and condition numbers of a run, counted from the records of its shares and groups."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache

import torch

from fcdcc.coding.conditioning import condition_limit
from fcdcc.coding.cost import share_cost

from ...anyk.state_machine.history import GroupRecord, ShareRecord
from ...plans.plan import LayerPlan, Plan
from ...worker.kernels.common import survivors_used

MAX_OPEN_GROUPS = 20_000
"""Most groups that are not completed and are tracked one by one."""

RECENT_CONDITIONS = 100
"""Most condition numbers that are kept, the latest."""


@dataclass(slots=True)
class _OpenWork:
    """A group that is not completed: multiply-adds so far, and the shares that are done."""

    executed: int = 0
    done: set[int] = field(default_factory=set)


class WorkCounter:
    """Extra work and condition numbers of a run.

    Parameters
    ----------
    plan
        How the shares were made.
    images_of
        How many images a block has.
    band_of
        For a block that is a band of rows: its own plan, and its part of the prediction of its
        images. None if blocks hold whole images.
    """

    def __init__(
        self,
        plan: Plan,
        images_of: Callable[[int], int],
        band_of: Callable[[int], tuple[Plan, float]] | None = None,
    ) -> None:
        self.max_condition_number: float | None = None
        """The largest condition number; None before any group was completed."""
        self.recent_conditions: deque[float] = deque(maxlen=RECENT_CONDITIONS)
        """Condition numbers of the latest groups in which something was solved for."""
        self._plan = plan
        self._images_of = images_of
        self._band_of = band_of or (lambda _: (plan, 1.0))
        self._executed = 0
        self._uncoded = 0.0
        self._open: OrderedDict[tuple[int, int], _OpenWork] = OrderedDict()
        self._cost = lru_cache(maxsize=4096)(self._share_cost)
        self._condition = lru_cache(maxsize=4096)(self._condition_of)

    @property
    def condition_limit(self) -> float:
        """The condition number above which one more share than δ is waited for."""
        return condition_limit(self._dtype)

    @property
    def extra_work(self) -> float:
        """(multiply-adds executed − uncoded) / uncoded, over the whole network.

        A group counts when it is completed, and the shares of the other groups at the end. A
        share that was given up counts whole, because it is not known when it stopped. Rows of
        coded layers that two bands both compute are extra work, too.
        """
        plan = self._plan
        if not self._uncoded:
            return 0.0
        coded = sum(layer.multiply_adds for layer in plan.layers if layer.code)
        extra = (self._executed - self._uncoded) / self._uncoded
        return round(extra * coded / plan.multiply_adds, 6)

    def take(self, shares: Iterable[ShareRecord], groups: Iterable[GroupRecord]) -> None:
        """Count shares, and then the groups that were completed with them."""
        for share in shares:
            self._take_share(share)
        for group in groups:
            self._take_group(group)

    def close(self) -> None:
        """Count the shares of groups that are not completed, or that ended after their group."""
        self._executed += sum(group.executed for group in self._open.values())
        self._open.clear()

    def _take_share(self, share: ShareRecord) -> None:
        key = (share.layer, share.block)
        group = self._open.get(key)
        if group is None:
            group = self._open[key] = _OpenWork()
            if len(self._open) > MAX_OPEN_GROUPS:
                self._executed += self._open.popitem(last=False)[1].executed
        layer = self._band_of(share.block)[0].layer(share.layer)
        group.executed += self._cost(layer, share.position, self._images_of(share.block))
        if share.state == "done":
            group.done.add(share.position)

    def _take_group(self, record: GroupRecord) -> None:
        group = self._open.pop((record.layer, record.block), _OpenWork())
        layer = self._plan.layer(record.layer)
        self._executed += group.executed
        part = self._band_of(record.block)[1]
        self._uncoded += layer.multiply_adds * self._images_of(record.block) * part
        number = self._condition(record.layer, tuple(sorted(group.done)))
        if number is not None:
            self.max_condition_number = max(number, self.max_condition_number or number)
            if record.solved:
                self.recent_conditions.append(number)

    def _share_cost(self, layer: LayerPlan, position: int, images: int) -> int:
        return share_cost(layer.coded_conv, position, layer.entries(images)).multiply_adds

    def _condition_of(self, layer: int, positions: tuple[int, ...]) -> float | None:
        code = self._plan.layer(layer).coded_conv.code
        used = survivors_used(code, positions, self._dtype)
        return code.condition_number(used) if code.is_decodable(used) else None

    @property
    def _dtype(self) -> torch.dtype:
        # In bfloat16 there are no groups, and predictions are float32.
        name = "float32" if self._plan.dtype == "bfloat16" else self._plan.dtype
        found: torch.dtype = getattr(torch, name)
        return found
