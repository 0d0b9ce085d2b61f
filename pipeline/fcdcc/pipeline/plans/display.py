"""A plan for people: a table and sentences on a terminal, HTML in notebooks, lines of text."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from math import ceil
from typing import Any, NamedTuple

from distributed import Client
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from .. import templates
from ..formatting import (
    MIN_MENTIONED_WORK,
    amount,
    counted,
    duration,
    longer_by,
    memory_in_words,
    percent,
    printable,
)
from ..options import with_keywords
from ..words import PLAN_WORDS, explained
from .forecast import Forecast, LayerForecast
from .plan import LEFT_OUT, LayerPlan, Plan, Redundancy

_PACKAGE = __name__.rpartition(".")[0]

WIDE_COLUMNS = 100
"""Width of a terminal from which on the table has its widest columns, too."""

DEFAULT_COLUMNS = 120
"""Width of the table where the output is no terminal."""

MAX_LAYERS_SHOWN = 200

MAX_LAYERS_NAMED = 6
"""Most layers that a sentence names; it counts the others."""

FREE_RATIO = 1.02
"""A plan is said to cost nothing if it takes at most this many times as long as plain
inference."""

MIN_SLOWER_PERCENT = 0.5
"""From so many per cent on, a run is said to take longer with fewer workers."""

SPARE_SHARES: dict[Redundancy, str] = {
    "eager": "all shares of a layer start at once",
    "standby": "parity starts when a share is late",
    "off": "none",
}


# ------------------------------------------------------------------------- text


def plan_text(plan: Plan) -> str:
    """Return a plan as lines of text: what ``str(plan)`` is."""
    head = f"blocks of {_blocks(plan)}; {plan.code}, {plan.dtype}"
    how = f"split by {plan.split}; redundancy: {_spare_shares(plan)}"
    predicted = [
        line if line.startswith(LEFT_OUT) else f"predicts {line}"
        for line in _lines(plan.prediction)
    ]
    if plan.verify == "checksum" and plan.checksums_cover:
        how += f"\nchecksums cover {plan.checksums_cover}"
    layers = (_layer_line(plan, layer) for layer in plan.layers)
    costs = (f"{name}: {with_keywords(value)}" for name, value in _costs(plan))
    said = _python_sentences(plan)
    return "\n".join([_title(plan), head, how, *predicted, *layers, *costs, *said])


def plan_line(plan: Plan) -> str:
    """Return a plan as one line of text: what ``repr(plan)`` is."""
    block = counted(plan.batch, "image")
    return f"<Plan: {_title(plan)}; blocks of {block}, split by {plan.split}>"


def _layer_line(plan: Plan, layer: LayerPlan) -> str:
    geometry = layer.geometry
    size = "×".join(map(str, geometry.spatial))
    start = f"  {layer.layer:>3} {layer.name}: "
    shape = f"{geometry.in_channels}→{geometry.out_channels}, {size}"
    if layer.is_part_of_next_share:
        point = _point_of(plan, layer)
        where = "a later layer" if point is None else f"layer {point}"
        return f"{start}{shape}: in the share of {where}"
    if layer.code is None:
        return f"{start}{shape}: not protected: {layer.reason}"
    return (
        f"{start}{shape}: {layer.code.name}, k_a {layer.code.k_a} × k_b {layer.code.k_b} by "
        f"{layer.split}" + (", strips stay" if layer.in_place else "")
    )


def _point_of(plan: Plan, layer: LayerPlan) -> int | None:
    """Return the coded layer whose shares compute a layer before it; None if there is none."""
    later = [number for number in plan.coded_layers if number > layer.layer]
    return min(later, default=None)


def _has_redundancy(plan: Plan) -> bool:
    return bool(plan.coded_layers) and plan.redundancy != "off" and plan.tolerate > 0


def _spare_shares(plan: Plan) -> str:
    """Return when parity starts, or that there is none."""
    return SPARE_SHARES[plan.redundancy if _has_redundancy(plan) else "off"]


# -------------------------------------------------------------------- sentences


def losses(plan: Plan) -> str:
    """Return a sentence on how many shares, workers and machines may be lost at a time."""
    if not plan.coded_layers:
        return "There is no redundancy: the work of a lost worker is computed again."
    if not _has_redundancy(plan):
        return (
            "There is no redundancy: layers wait for late shares, and lost shares are computed "
            "again on another worker."
        )
    points = len(plan.coded_layers)
    where = "At that point" if points == 1 else f"At each of the {points} points"
    said = f"{where} any {plan.delta} of {plan.n} shares suffice"
    found = plan.forecast
    if found is None:
        return f"{said}: {plan.tolerate} of them may be lost or late."
    workers = found.workers
    if workers.in_one_process:
        return (
            f"{said}: {plan.tolerate} of them may be late or fail. The workers are threads of one "
            "process, which must not be lost."
        )
    lost = workers.lost(plan.n, plan.tolerate)
    hosts = workers.hosts_lost(plan.n, plan.tolerate)
    where = ""
    if workers.hosts > 1:
        where = f", of {workers.hosts} machines {_number(hosts)}"
    elif lost:
        where = ", but the one machine must not be lost"
    said += f": of {workers.count} workers {_number(lost)} may be lost at a time{where}."
    if workers.count < plan.n and plan.tolerate > lost:
        said += (
            f" A worker holds up to {-(-plan.n // workers.count)} shares of a layer; with {plan.n} "
            f"workers, {plan.tolerate} might be lost."
        )
    return said


def _number(count: int) -> str:
    return str(count) if count else "none"


def one_loss(plan: Plan) -> str:
    """Return what one lost worker costs, in a sentence; '' if that is not known.

    The others compute parity in place of the shares that it held: its part of the needed shares of
    the blocks in flight. Where workers of one machine share fewer cores than
    they are, those that are left use the cores of the lost one.
    """
    found = plan.forecast
    if found is None or not plan.protected_layers or not found.block_seconds:
        return ""
    cores = max(1.0, found.speeds.parallel)
    workers = found.workers.count
    if not found.workers.lost(plan.n, plan.tolerate):
        return ""
    blocks = plan.in_flight
    if found.images is not None:
        blocks = min(blocks, found.blocks(found.images, plan.batch))
    held = min(ceil(plan.n / workers) * blocks, ceil(plan.delta * blocks / workers))
    slots = found.workers.slots
    before, after = min(workers * slots, cores), min((workers - 1) * slots, cores)
    if found.workers.hosts > 1:  # its cores are lost with it
        after = before * (workers - 1) / workers
    share_seconds = found.block_seconds / plan.delta  # while all workers compute shares
    once = max(share_seconds * workers, held * share_seconds * before / after)
    said = (
        f"One lost worker costs up to about {duration(once)} once: the time that the others need "
        f"for parity in place of the {counted(held, 'share')} that it has of "
        f"{counted(blocks, 'block')} in flight. If it stops answering and keeps its connection, "
        "the time until that is noticed, usually 3 to 5 s, is added"
    )
    slower = 100 * (before / after - 1)
    if slower < MIN_SLOWER_PERCENT:
        return (
            f"{said}. If no other takes its place, what is left of the run then takes about as "
            "long, since the others use its part of the cores."
        )
    return (
        f"{said}. If no other takes its place, what is left of the run then takes {slower:.0f} % "
        "longer, as it would without redundancy."
    )


PLAIN_OPTION = "--n 1"
"""What makes a run plain data-parallel inference: each block is one share, and nothing is coded."""


def comparison(plan: Plan, start_and_end_seconds: float | None = None) -> str:
    """Return how the plan compares with plain data-parallel inference, in a sentence.

    Parameters
    ----------
    plan
        The plan.
    start_and_end_seconds
        What both take beside their work, if that is known.
    """
    found = plan.forecast
    if found is None:
        return ""
    planned, what = _planned_seconds(plan, found)
    plain = found.plain_seconds
    beside = 0.0 if found.images is None else start_and_end_seconds or 0.0
    with_start = " with start and end" if beside else ""
    said = (
        f"Plain data-parallel inference takes about {duration(plain + beside)} for {what}"
        f"{with_start}, this plan {duration(planned + beside)}"
    )
    if planned + beside <= FREE_RATIO * (plain + beside):
        if not plan.protected_layers:
            return f"{said}."
        return f"{said}: redundancy costs next to nothing while all workers are healthy."
    if not plan.protected_layers:
        better = "" if plan.n == 1 else f": plain inference, {PLAIN_OPTION}, is the better choice"
        return f"{said} and tolerates no loss{better}."
    more = longer_by(plain + beside, planned + beside)
    return (
        f"{said}: plain inference, {PLAIN_OPTION}, is the better choice unless workers that stall, "
        f"die or are slow would cost it more than {more}."
    )


def _planned_seconds(plan: Plan, found: Forecast) -> tuple[float, str]:
    """Return the plan's seconds for the images of ``plain_seconds``, and these in words."""
    if found.images is None:
        count = found.workers.count * plan.batch
        blocks = found.workers.count * found.bands
        return found.block_seconds * blocks, f"every {count} images"
    return found.seconds_of(found.images, plan.batch), counted(found.images, "image")


def not_protected(plan: Plan) -> Iterator[str]:
    """Yield, for each reason why convolutions are in no share, a line that names them."""
    reasons: defaultdict[str, list[LayerPlan]] = defaultdict(list)
    for layer in plan.layers:
        if layer.code is None and not layer.is_part_of_next_share:
            reasons[layer.reason].append(layer)
    for reason, layers in reasons.items():
        names = ", ".join(layer.name or str(layer.layer) for layer in layers[:MAX_LAYERS_NAMED])
        others = len(layers) - MAX_LAYERS_NAMED
        more = f" and {others} more" if others > 0 else ""
        yield f"{names}{more}: {reason}"


def _python_sentences(plan: Plan) -> Iterator[str]:
    """Yield the sentences for people who made the plan in Python, and which workers it is for."""
    yield from map(with_keywords, _sentences(plan))
    if _has_redundancy(plan) and not _has_client():
        yield (
            "Redundancy and times are those of a cluster, and there is no current Dask Client: "
            f"without one infer() computes all {plan.n} shares of a layer, parity too, in threads "
            f"of this process, {100 * plan.tolerate / plan.delta:.0f} % more arithmetic than "
            f"{counted(plan.delta, 'share takes', 'shares take')}. One process loses no worker: "
            "n=1 leaves parity out."
        )
    if plan.forecast is not None:
        workers = counted(plan.forecast.workers.count, "worker")
        yield (
            f"The plan is for {workers}. Other workers may lead to other blocks and shares: plan() "
            "and infer() take those of the current client, or else one for each share if n is "
            "given and for each core if not; fcdcc plan takes those that fcdcc run would start."
        )


def _has_client() -> bool:
    """Return whether there is a current Dask client, on whose cluster arrays are computed."""
    try:
        Client.current()
    except ValueError:
        return False
    return True


def _sentences(plan: Plan, start_and_end_seconds: float | None = None) -> Iterator[str]:
    """Yield sentences on tolerated losses, plain inference, layers in no share, and warnings."""
    said = (losses(plan), one_loss(plan), comparison(plan, start_and_end_seconds))
    yield from filter(None, said)
    missing = list(not_protected(plan))
    if missing:
        yield "Not protected: " + "; ".join(missing) + "."
    yield from (f"Note: {warning}." for warning in plan.warnings)


# ---------------------------------------------------------------------- columns


class _Row(NamedTuple):
    layer: LayerPlan
    cost: LayerForecast | None
    plan: Plan


class _Column(NamedTuple):
    name: str
    cell: Callable[[_Row], str]
    wide: bool = False
    left: bool = False


def _shape(row: _Row) -> str:
    geometry = row.layer.geometry
    kernel = "×".join(map(str, geometry.kernel))
    size = "×".join(map(str, geometry.spatial))
    return f"{geometry.in_channels}→{geometry.out_channels}, {kernel}, {size}"


def _protected(row: _Row) -> str:
    """Return the layer at which the shares are checked that compute a layer."""
    if row.layer.layer not in row.plan.protected_layers:
        return "no"
    if row.layer.code is not None:
        return "here"
    point = _point_of(row.plan, row.layer)
    return "at a later layer" if point is None else f"at layer {point}"


def _partition(row: _Row) -> str:
    code = row.layer.code
    return "–" if code is None else f"{code.k_a} × {code.k_b}"


def _output_place(row: _Row) -> str:
    """Return where the parts of a layer's output are."""
    layer = row.layer
    if layer.code is None:
        return "in place" if layer.is_part_of_next_share else "on one worker"
    return "in place" if layer.in_place or layer.split == "images" else "gathered"


def _cost(cell: Callable[[LayerForecast, Plan], str]) -> Callable[[_Row], str]:
    """Return a cell that has a dash where there is no forecast."""
    return lambda row: "–" if row.cost is None else cell(row.cost, row.plan)


def _of_task(cell: Callable[[LayerForecast, Plan], str]) -> Callable[[_Row], str]:
    """Return a cell that also has a dash where the layer has no task of its own."""
    known = _cost(cell)
    return lambda row: "–" if row.layer.is_part_of_next_share else known(row)


def _condition(row: _Row) -> str:
    known = None if row.cost is None else row.cost.condition
    return "–" if known is None else f"{known:.3g}"


def _work_part(cost: LayerForecast, plan: Plan) -> str:
    total = max(1, plan.multiply_adds * _images(plan))
    part = 100 * cost.multiply_adds / total
    return f"{part:.1f} %" if part < 9.95 else f"{part:.0f} %"


COLUMNS = (
    _Column("layer", lambda row: str(row.layer.layer), left=True),
    _Column("name", lambda row: row.layer.name, left=True),
    _Column("channels, kernel, size", _shape, left=True, wide=True),
    _Column("protected", _protected, left=True),
    _Column("k_a × k_b", _partition),
    _Column("output", _output_place, left=True),
    _Column("work", _cost(_work_part)),
    _Column("sent", _of_task(lambda cost, plan: amount(cost.bytes_sent / _images(plan), "B"))),
    _Column("memory", _of_task(lambda cost, _: amount(cost.memory, "B"))),
    _Column("condition", _condition),
)
"""The columns of the table; :data:`..words.PLAN_WORDS` explains them."""

OF_REDUNDANCY = ("parity", "redundancy", "condition")
"""Words that a plan without redundancy does not need."""

EXPLAINED = ("protected", "k_a × k_b", "output", "work", "sent", "memory", "condition")
"""Columns that are explained below the table."""


def _rows(plan: Plan) -> Iterator[_Row]:
    costs = {} if plan.forecast is None else {cost.layer: cost for cost in plan.forecast.layers}
    for layer in plan.layers[:MAX_LAYERS_SHOWN]:
        yield _Row(layer, costs.get(layer.layer), plan)


# ----------------------------------------------------------------------- totals


def _images(plan: Plan) -> float:
    """Return the images of a block; a fraction if it holds one band of its images."""
    return plan.batch / (1 if plan.forecast is None else plan.forecast.bands)


def protection(plan: Plan) -> str:
    """Return how many convolutions are protected against lost shares, and where that is checked."""
    total, protected = len(plan.layers), len(plan.protected_layers)
    if not total:
        return "There is no convolution to protect"
    if not protected:
        if total == 1:
            return "The convolution is not protected"
        return f"None of {total} convolutions is protected"
    what = f"{protected} of {total} convolutions are"
    if protected == total:
        what = "The convolution is" if total == 1 else f"All {total} convolutions are"
    return f"{what} protected, checked at {counted(len(plan.coded_layers), 'point')}"


def _title(plan: Plan) -> str:
    if not plan.protected_layers:
        return f"{protection(plan)}: lost work is computed again"
    return f"{protection(plan)}: any {plan.delta} of {plan.n} shares suffice"


def _blocks(plan: Plan) -> str:
    """Return what a block is, and why it has that many images."""
    block = counted(plan.batch, "image")
    if plan.band is not None:
        block = f"{plan.band} rows of the prediction of {block}"
    why = f" ({plan.batch_reason})" if plan.batch_reason else ""
    return f"{block}{why}, up to {counted(plan.in_flight, 'block')} in flight"


def _lines(text: str) -> list[str]:
    return text.split("\n") if text else []


def _code(plan: Plan) -> str:
    """Return the code, its numbers and how a block is split."""
    if not plan.coded_layers:
        return f"none, {plan.dtype}"
    return f"{plan.code}, n = {plan.n}, δ = {plan.delta}, split by {plan.split}, {plan.dtype}"


def _totals(plan: Plan, start_and_end_seconds: float | None = None) -> Iterator[tuple[str, str]]:
    """Yield what the network predicts and what the plan costs altogether: names and values."""
    for line in _lines(plan.prediction):
        said = line.removeprefix(LEFT_OUT)
        yield ("Prediction" if said == line else "Left out"), said
    yield "Code", _code(plan)
    yield "Blocks", _blocks(plan)
    yield "Redundancy", _spare_shares(plan)
    if plan.verify == "checksum":
        yield "Checksums", plan.checksums_cover or "all convolutions and linear layers"
    yield from _costs(plan, start_and_end_seconds)


def _costs(plan: Plan, start_and_end_seconds: float | None = None) -> Iterator[tuple[str, str]]:
    """Yield what the plan costs altogether by its forecast: names and values."""
    found = plan.forecast
    if found is None:
        return
    batch = _images(plan)
    work = amount(found.block_multiply_adds / batch, "")
    extra = ""
    if found.extra_work >= MIN_MENTIONED_WORK:
        extra = f", {percent(found.extra_work)} more than the network's own"
    spare = _parity_work(plan)
    late = f"; a layer that starts all its parity adds {100 * spare:.0f} %" if spare else ""
    yield "Work", f"{work} multiply-adds an image{extra}{late}"
    yield "Sent between workers", _sent(found, batch)
    yield "Memory", _memory(found)
    yield "Time", _time(plan, found, start_and_end_seconds)


def _sent(found: Forecast, batch: float) -> str:
    """Return how many bytes workers send each other, and what these are."""
    if not found.bytes_sent:
        return "nothing, unless several workers need images of one stored chunk"
    image, block = amount(found.bytes_sent / batch, "B"), amount(found.bytes_sent, "B")
    said = f"{image} an image, {block} a block"
    results = "what one worker has computed or read and another needs"
    if not found.read_bytes:
        return f"{said}. That is {results}."
    stored = "images: a worker that reads a stored chunk sends the others what they need of it"
    if not round((found.bytes_sent - found.read_bytes) / batch):
        return f"{said}. All of that is {stored}."
    part = amount(found.read_bytes / batch, "B")
    return f"{said}. Of an image, {part} is {stored}. The rest is {results}."


def _parity_work(plan: Plan) -> float:
    """Return what parity on standby would add to a layer's work if it all started."""
    coded = any(layer.code is not None for layer in plan.layers)
    return plan.tolerate / plan.delta if plan.redundancy == "standby" and coded else 0.0


def _memory(found: Forecast) -> str:
    workers = found.workers
    needed = memory_in_words(found.peak_memory, found.parity_memory)
    if workers.in_one_process:
        return f"the process with all workers needs at most {needed}"
    said = f"a worker needs at most {needed}"
    return f"{said}; it has {amount(workers.memory, 'B')}" if workers.memory else said


def _time(plan: Plan, found: Forecast, start_and_end_seconds: float | None) -> str:
    speed = (
        "measured speeds; --calibrate measures them again"
        if found.speeds.source == "measured"
        else "default speeds: --calibrate measures them"
    )
    pace = _images(plan) / found.block_seconds if found.block_seconds else 0.0
    rate = f"{pace:,.0f}" if pace >= 9.95 else f"{pace:.2g}"
    said = f"{rate} images a second with {counted(found.workers.count, 'worker')} ({speed})"
    if found.images is None:
        return said
    work = found.seconds_of(found.images, plan.batch)
    images = counted(found.images, "image")
    if start_and_end_seconds is None:
        return f"{duration(work)} for {images}, {said}"
    whole = duration(work + start_and_end_seconds)
    beside = duration(start_and_end_seconds)
    return f"about {whole} for {images}, of which start and end {beside}; {said}"


# ------------------------------------------------------------ terminal and HTML


def print_plan(
    plan: Plan,
    console: Console | None = None,
    images: str | None = None,
    start_and_end_seconds: float | None = None,
) -> None:
    """Print a plan as a table, and what it means in sentences.

    ``images`` says what the images become, and ``start_and_end_seconds`` is what a job takes beside
    its work, if that is known.
    """
    console = console or Console()
    if not console.is_terminal:
        console.width = max(console.width, DEFAULT_COLUMNS)
    console.print(f"[bold]{_escaped(_title(plan))}[/bold]", highlight=False)
    console.print(_table(plan, console.width))
    for line in explained(EXPLAINED, PLAN_WORDS) if plan.coded_layers else ():
        console.print(Padding(_escaped(line), (0, 0, 0, 2)), style="dim", highlight=False)
    console.print()
    if images is not None:
        console.print(f"[bold]Images:[/bold] {escape(images)}", highlight=False)
    for name, value in _totals(plan, start_and_end_seconds):
        console.print(f"[bold]{name}:[/bold] {_escaped(value)}", highlight=False)
    for sentence in _sentences(plan, start_and_end_seconds):
        console.print(f"\n{_escaped(sentence)}", highlight=False)


def _table(plan: Plan, width: int) -> Table:
    columns = [column for column in COLUMNS if width >= WIDE_COLUMNS or not column.wide]
    table = Table(box=box.SIMPLE, padding=(0, 1), collapse_padding=True, pad_edge=False)
    for column in columns:
        table.add_column(
            column.name,
            justify="left" if column.left else "right",
            overflow="ellipsis",
            no_wrap=True,
            min_width=None if column.left else len(column.name),
        )
    for row in _rows(plan):
        style = "" if row.layer.code is not None else "dim"
        table.add_row(*(_escaped(column.cell(row)) for column in columns), style=style)
    return table


def _escaped(text: str) -> str:
    """Return a text for Rich that is shown as it is; names in it may come from a model file."""
    return escape(printable(text))


def plan_html(plan: Plan) -> str:
    """Return a plan as HTML, as notebooks show it: it names keywords of Python."""
    values = _html_values(plan, None, None)
    values["totals"] = [(name, with_keywords(value)) for name, value in values["totals"]]
    values["sentences"] = list(_python_sentences(plan))
    return templates.render(_PACKAGE, "plan.html", **values)


def plan_page(
    plan: Plan,
    model: str,
    source: str,
    images: str | None = None,
    start_and_end_seconds: float | None = None,
) -> str:
    """Return a plan as a page of its own, for the model and the images that these names say.

    ``images`` and ``start_and_end_seconds`` are as for :func:`print_plan`.
    """
    values = _html_values(plan, images, start_and_end_seconds)
    return templates.render(_PACKAGE, "plan_page.html", model=model, input=source, **values)


def _html_values(
    plan: Plan, images: str | None, start_and_end_seconds: float | None
) -> dict[str, Any]:
    known = [] if images is None else [("Images", images)]
    return {
        "title": _title(plan),
        "columns": COLUMNS,
        "words": {
            word: meaning
            for word, meaning in PLAN_WORDS.items()
            if _has_redundancy(plan) or word not in OF_REDUNDANCY
        },
        "rows": list(_rows(plan)),
        "totals": [*known, *_totals(plan, start_and_end_seconds)],
        "sentences": list(_sentences(plan, start_and_end_seconds)),
    }
