"""The report as one HTML file that needs nothing else, to be sent to a colleague."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from fcdcc.coding import __version__

from ...formatting import clock, count, duration, percent, rounded, times
from ..dashboard.page import conditions_strip
from ..html import bar, curves, element, row, table, text
from ..stragglers import SLOW
from ..style import SHEET, WIDE_SHEET
from .conclusion import conclusion, state_words
from .recorded_run import OutputReport, RecordedRun
from .timeline import timeline, windows

SHOWN_RUNS = 50
DETAILED_RUNS = 10
SHOWN_WORKERS = 100
SHOWN_LAYERS = 200
SHOWN_FAILURES = 200
SHOWN_EVENTS = 60
SHOWN_ALIKE = 6


def report_page(past: OutputReport) -> str:
    """Return the report of an output as a whole HTML document."""
    status = past.status
    head = element("h1", text(_name(past.output))) + element(
        "p",
        text(
            f"{past.output}: {status.blocks_done} of {status.blocks_total} blocks done "
            f"({status.images_done} of {status.images} images), {status.blocks_missing} missing, "
            f"{status.blocks_failed} failed"
        ),
        class_="faint",
    )
    parts = [head]
    if not past.runs:
        parts.append(element("p", "No run has left its story here.", class_="say none"))
    for number, run in enumerate(past.runs[:DETAILED_RUNS]):
        content = _run(run)
        title = text(f"Run {run.run}, {run.started}: {state_words(run.state)}")
        if number:
            content = element("details", element("summary", title) + content)
        else:
            content = element("h2", title) + content
        parts.append(content)
        if not number and len(past.runs) > 1:
            parts += [element("h2", "All runs"), _runs(past.runs[:SHOWN_RUNS])]
    parts += [_failures(past), _ending(past)]
    body = element("main", "".join(parts), class_="fcdcc")
    title = f"fcdcc: {_name(past.output)}"
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{text(title)}</title><style>{SHEET}{WIDE_SHEET}</style></head>"
        f"<body>{body}</body></html>"
    )


def _name(output: str) -> str:
    return output.rstrip("/").rpartition("/")[2] or output


def _section(title: str, content: str) -> str:
    return element("section", element("h2", text(title)) + content) if content else ""


def _run(run: RecordedRun) -> str:
    """Return all about one run."""
    said = " ".join(conclusion(run))
    bad = run.state not in ("complete", "running") or any(
        (worker["pace"] or 0) >= SLOW or worker["gone"] for worker in run.workers
    )
    parts = [
        element("p", text(said), class_="say bad" if bad else "say"),
        _tiles(run),
        _section("Shares by worker", _timeline(run)),
        _section("What coding bought", _latency(run)),
        _section("Plan and measurement", _planned(run)),
        _section("Workers, the slowest first", _workers(run)),
        _section("Layers: plan and measurement", _layers(run)),
        _section("Events", _events(run)),
        _section("What it was", _about(run)),
    ]
    return "".join(parts)


def _tiles(run: RecordedRun) -> str:
    number = run.number
    tiles = [
        (_whole(number("blocks_done")), "blocks done"),
        (_whole(number("blocks_failed")), "blocks failed"),
        (duration(run.seconds), "from the first block to the last"),
        (rounded(run.images_per_second), "images a second"),
        (_whole(number("groups")), "groups completed"),
        (_whole(number("erasures")), "shares not waited for"),
        (_whole(number("decodes")), "groups decoded"),
        (_whole(number("parity_started")), "parity shares started"),
        (percent(number("extra_work")), "extra work"),
        (rounded(number("max_condition_number")), "largest condition number"),
        (_whole(number("workers_lost")), "workers lost"),
        (duration(run.saved), "waiting saved, at least"),
    ]
    if number("corrupt_shares"):
        tiles.append((_whole(number("corrupt_shares")), "wrong shares found"))
    made = [
        element("div", element("b", text(value)) + element("span", text(what)), class_="tile")
        for value, what in tiles
    ]
    return element("div", "".join(made), class_="tiles six")


def _whole(value: float | None) -> str:
    return "–" if value is None else count(value)


def _timeline(run: RecordedRun) -> str:
    drawn = [timeline(run, window) for window in windows(run)]
    if not drawn:
        return ""
    names = {layer["layer"]: layer["name"] for layer in run.layers}
    used = sorted({share.layer for share in run.shares if share.stage != "parity"})
    kinds = [
        *(
            (f"k-l{i % 4}", f"layer {number} {names.get(number, '')}")
            for i, number in enumerate(used[:4])
        ),
        *([("f-share", f"and so on, {len(used)} layers")] if len(used) > 4 else []),
        ("f-parity", "parity"),
        ("f-waited", "given to the worker, and given up later"),
        ("f-ghost", "ghost: the worker is stuck with it, nobody waits"),
        ("f-lost", "lost with the worker"),
        ("f-away", "worker not there any more"),
    ]
    return element("div", "".join(drawn) + _key(kinds), class_="box")


def _key(kinds: Sequence[tuple[str, str]]) -> str:
    shown = (element("span", element("i", "", class_=k) + text(what)) for k, what in kinds)
    return element("p", "".join(shown), class_="key")


def _latency(run: RecordedRun) -> str:
    """Return how many groups were there by when, with and without the slowest share."""
    groups = run.groups
    if len(groups) < 2:
        return ""
    longest = max(max(g.slowest for g in groups), 1e-3)
    shortest = min(max(min(g.seconds for g in groups), longest / 1e4), longest / 2)
    reach = math.log(longest / shortest)

    def place(value: float) -> float:
        return math.log(max(value, shortest) / shortest) / reach

    series = [
        ("slowest", _staircase([place(g.slowest) for g in groups])),
        ("group", _staircase([place(g.seconds) for g in groups])),
    ]
    marks = [shortest * math.exp(reach * i / 4) for i in range(5)]
    axis = "".join(element("span", text(duration(mark))) for mark in marks)
    kinds = [
        ("k-good", "groups that were there after so long"),
        ("k-slowest", "had they waited for the slowest share, at least"),
    ]
    box = element(
        "div",
        element("small", "all groups") + curves(series) + element("div", axis, class_="axis")
        + _key(kinds),
        class_="box",
    )  # fmt: skip
    told = run.told
    conditions = {
        "last": list(told.get("conditions") or ()),
        "max": run.number("max_condition_number"),
        "limit": told.get("condition_limit"),
    }
    second = ""
    if conditions["last"]:
        second = element(
            "div",
            element("p", "Condition numbers of the last decodes, on a logarithmic axis")
            + conditions_strip(conditions),
        )
    return element("div", box + second, class_="two")


def _staircase(values: Sequence[float]) -> list[tuple[float, float]]:
    """Return the distribution of some places as at most 400 steps."""
    ordered = sorted(values)
    step = max(1, len(ordered) // 400)
    places = sorted({*range(step - 1, len(ordered), step), len(ordered) - 1})
    return [(ordered[i], (i + 1) / len(ordered)) for i in places]


def _workers(run: RecordedRun) -> str:
    rows = [
        row(
            [
                text(worker["address"])
                + (f" <small>{worker['gone']}</small>" if worker["gone"] else ""),
                times(worker["pace"]),
                bar((worker["pace"] or 0) / 4, kind="bad" if (worker["pace"] or 0) >= SLOW else ""),
                count(worker["done"]),
                count(worker["erased"]),
                duration(worker["late_mean"]) if worker["erased"] else "–",
                duration(worker["worst"]) if worker["erased"] else "–",
                count(worker["lost"]),
            ],
            class_="slow" if (worker["pace"] or 0) >= SLOW or worker["gone"] else "",
        )
        for worker in run.workers[:SHOWN_WORKERS]
    ]
    head = ["worker", "pace", "", "shares", "not waited for", "late on average", "worst", "lost"]
    return table(head, rows) if rows else ""


def _planned(run: RecordedRun) -> str:
    rows = [row([text(cell) for cell in cells]) for cells in run.expected_of_run]
    return table(["", "planned", "measured"], rows) if rows else ""


def _layers(run: RecordedRun) -> str:
    rows = [_layer_row(layer) for layer in run.layers[:SHOWN_LAYERS]]
    head = [
        "layer", "name", "plan", "groups", "decoded", "to decode", "slowest share", "one share",
        "planned work", "measured time", "",
    ]  # fmt: skip
    return table(head, rows) if rows else ""


def _layer_row(layer: dict[str, Any]) -> str:
    plan = (
        f"whole: {layer['reason']}"
        if layer["code"] is None
        else f"{layer['code']}, {layer['k_a']} × {layer['k_b']}, {layer['split']}"
    )
    known = bool(layer["groups"])
    part = layer.get("part_measured")
    return row(
        [
            text(layer["layer"]),
            f"{text(layer['name'])} <small>{text(layer['shape'])}</small>",
            text(plan),
            count(layer["groups"]) if known else "–",
            count(layer["decodes"]) if known else "–",
            duration(layer["seconds"]) if known else "–",
            duration(layer["slowest"]) if known else "–",
            duration(layer["share"]) if known else "–",
            percent(layer["part"]),
            percent(part),
            bar(layer["part"] or 0.0, "planned work in front, measured time behind", second=part),
        ]
    )


def _events(run: RecordedRun) -> str:
    words = {
        "late": "a group was late: its parity was started",
        "doubled": "a single task was late: it was started again elsewhere",
        "removed": "a worker did not answer and was removed",
        "lost": "a worker was lost",
        "retired": "a worker left as it was asked to",
        "corrupt-share": "a wrong share was found and left out",
        "mismatch": "shares contradicted each other: the block was done again",
        "not-finite": "NaN or infinity arose",
    }
    rows = []
    for name, some in groupby(run.events, key=lambda event: str(event["event"])):
        alike = list(some)
        moment = clock(max(0.0, float(alike[0]["time"]) - run.begin))
        where = "; ".join(dict.fromkeys(map(_place, alike[:SHOWN_ALIKE])))
        more = f" and {len(alike) - SHOWN_ALIKE} more" if len(alike) > SHOWN_ALIKE else ""
        what = words.get(name, name) + (f" ({len(alike)} times)" if len(alike) > 1 else "")
        cells = row([text(moment), text(what), text(where + more)])
        rows.append(cells.replace("<td>", '<td class="why">'))
    rows = rows[-SHOWN_EVENTS:]
    return table(["after", "what", "where"], rows) if rows else ""


def _place(event: Mapping[str, Any]) -> str:
    where = [f"{name} {event[name]}" for name in ("layer", "block") if name in event]
    where += [f"share {event['position']}"] if "position" in event else []
    where += [str(event["worker"])] if event.get("worker") else []
    return " ".join(where)


def _about(run: RecordedRun) -> str:
    about = run.about
    plain = [
        (name.replace("_", " "), value)
        for name, value in about.items()
        if not isinstance(value, dict | list) and value is not None
    ]
    rows = [row([text(name), text(value)]) for name, value in plain]
    versions = about.get("versions", {})
    rows += [row([text(name), text(value)]) for name, value in versions.items()]
    return element("details", element("summary", "Options and versions") + table(["", ""], rows))


def _runs(runs: Sequence[RecordedRun]) -> str:
    rows = [
        row(
            [
                text(run.run),
                text(run.started),
                text(state_words(run.state)),
                *(_whole(run.number(name)) for name in ("blocks_done", "blocks_failed")),
                duration(run.seconds),
                rounded(run.images_per_second),
                *(_whole(run.number(name)) for name in ("erasures", "decodes", "workers_lost")),
                percent(run.number("extra_work")),
            ]
        )
        for run in runs
    ]
    head = [
        "run", "began", "ended", "blocks", "failed", "time", "images/s", "erasures", "decodes",
        "workers lost", "extra work",
    ]  # fmt: skip
    return table(head, rows)


def _failures(past: OutputReport) -> str:
    """Return the blocks that have failed and have not been made since."""
    rows = [
        row([text(block), text(reason)]).replace("<td>", '<td class="why">')
        for block, reason in past.failures[:SHOWN_FAILURES]
    ]
    if not rows:
        return ""
    more = len(past.failures) - len(rows)
    note = element("p", text(f"and {more} more"), class_="faint") if more else ""
    return _section("Blocks that failed", table(["block", "reason"], rows) + note)


def _ending(past: OutputReport) -> str:
    plan = element("details", element("summary", "The plan") + element("pre", text(past.plan)))
    made = f"Made by fcdcc {__version__}; the output was begun {past.created}."
    return (plan if past.plan else "") + element("p", text(made), class_="faint")
