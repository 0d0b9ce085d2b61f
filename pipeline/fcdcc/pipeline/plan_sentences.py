"""What a plan means, in sentences: what may be lost, what it costs, what is not coded."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from .choices import PART_OF_NEXT
from .costs.forecast import Forecast
from .plans import LayerPlan, Plan

__all__ = [
    "amount", "comparison", "duration", "losses", "not_coded", "where_strips_stay",
]  # fmt: skip

_PREFIXES = ("", "k", "M", "G", "T", "P")


def amount(value: float, unit: str) -> str:
    """Return a number with two or three digits and a prefix.

    >>> amount(15_346_000_000, ""), amount(999.6e6, "B"), amount(0, "B"), amount(2.5e3, "B")
    ('15 G', '1.0 GB', '0 B', '2.5 kB')
    """
    size, step = float(value), 0
    while round(size) >= 1000 and step < len(_PREFIXES) - 1:
        size, step = size / 1000, step + 1
    digits = f"{size:.1f}" if 0 < size < 9.95 and step else f"{size:.0f}"
    return f"{digits} {_PREFIXES[step]}{unit}".rstrip()


def duration(seconds: float) -> str:
    """Return a time for people.

    >>> duration(0.0123), duration(2.5), duration(95), duration(7800), duration(2e5)
    ('12 ms', '2.5 s', '95 s', '2 h 10 min', '2 d 8 h')
    """
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    hours = round(seconds / 3600)
    if hours >= 48:
        return f"{hours // 24} d {hours % 24} h"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min"


def losses(plan: Plan) -> str:
    """Return what may be lost of every coded layer at a time."""
    if not plan.coded_layers:
        return "Nothing is coded: a worker that is lost takes its work along, which is done again."
    if plan.redundancy == "off" or not plan.tolerate:
        return (
            "Nothing is spare: a share that is late is waited for, and one that is lost is done "
            "again elsewhere."
        )
    said = f"Any {plan.delta} of the {plan.n} shares of a coded layer suffice"
    found = plan.forecast
    if found is None:
        return f"{said}: {plan.tolerate} of them may be lost or late."
    workers = found.workers
    lost, hosts = (
        workers.lost(plan.n, plan.tolerate),
        workers.hosts_lost(plan.n, plan.tolerate),
    )
    where = (
        f"of {workers.hosts} machines {_number(hosts)}"
        if workers.hosts > 1
        else "the machine itself must stay"
    )
    said += f": of {workers.count} workers {_number(lost)} may be lost at a time, {where}."
    if workers.count < plan.n and plan.tolerate > lost:
        said += (
            f" A worker holds up to {-(-plan.n // workers.count)} shares of a layer; with {plan.n} "
            f"workers, {plan.tolerate} might be lost."
        )
    return said


def _number(count: int) -> str:
    return str(count) if count else "none"


def comparison(plan: Plan) -> str:
    """Return how the plan compares with plain data-parallel inference, in a sentence."""
    found = plan.forecast
    if found is None:
        return ""
    ours, what = _ours(plan, found)
    plain = found.plain_seconds
    said = f"Plain data-parallel inference takes about {duration(plain)} for {what}, this plan "
    if ours <= 1.02 * plain:
        return said + f"{duration(ours)}: the insurance costs nothing while all is well."
    if not plan.coded_layers or plan.redundancy == "off" or not plan.tolerate:
        return said + f"{duration(ours)} and insures nothing: plain inference is the better choice."
    return (
        said
        + f"{duration(ours)}: plain is the better choice unless workers that stall, die or are "
        f"slow would cost it more than {duration(ours - plain)}."
    )


def _ours(plan: Plan, found: Forecast) -> tuple[float, str]:
    if found.images is None:
        count = found.workers.count * plan.batch
        blocks = found.workers.count * found.bands
        return found.block_seconds * blocks, f"{count} images of many"
    images = "1 image" if found.images == 1 else f"{found.images} images"
    return found.seconds_of(found.images, plan.batch), images


def where_strips_stay(layer: LayerPlan) -> str:
    """Return where the parts of a layer's output are."""
    if layer.code is None:
        return "on one worker" if layer.reason != PART_OF_NEXT else "in place"
    return "in place" if layer.in_place or layer.split == "images" else "gathered"


def not_coded(plan: Plan) -> Iterator[str]:
    """Yield, for each reason why convolutions are not coded, a line that names them."""
    reasons: defaultdict[str, list[LayerPlan]] = defaultdict(list)
    for layer in plan.layers:
        if layer.code is None:
            reasons[layer.reason].append(layer)
    for reason, layers in reasons.items():
        names = ", ".join(layer.name or str(layer.layer) for layer in layers[:6])
        more = f" and {len(layers) - 6} more" if len(layers) > 6 else ""
        yield f"{names}{more}: {reason}"
