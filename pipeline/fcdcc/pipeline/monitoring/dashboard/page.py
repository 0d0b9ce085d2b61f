"""The page ``/fcdcc`` of the dashboard, drawn from a snapshot."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2

from ...formatting import count, duration, percent, rounded, times
from ..html import bar, element, row, table, text, ticks
from ..stragglers import SLOW
from ..style import SHEET, pace_kind

SHOWN_WORKERS = 25
SHOWN_LAYERS = 60
EVERY = 1000

FRAME = """{% extends "base.html" %}
{% block extra_resources %}<style>{{ sheet }}</style>{% endblock %}
{% block content %}<div class="fcdcc" id="fcdcc">{{ content }}</div>
<script>
document.title = "Dask: fcdcc";
(function () {
  var place = document.getElementById("fcdcc");
  function again() {
    fetch("fcdcc/live", {cache: "no-store"})
      .then(function (answer) { if (!answer.ok) throw answer.status; return answer.text(); })
      .then(function (html) {
        var chosen = window.getSelection();
        if (!chosen || chosen.isCollapsed) place.innerHTML = html;
        place.style.opacity = 1;
      })
      .catch(function () { place.style.opacity = 0.4; })
      .then(function () { setTimeout(again, {{ every }}); });
  }
  setTimeout(again, {{ every }});
})();
</script>{% endblock %}"""


def page(template: jinja2.Template, extra: Mapping[str, Any], shown: Mapping[str, Any]) -> str:
    """Return the whole page in the frame of Dask's pages."""
    frame = template.environment.from_string(FRAME)
    return frame.render(sheet=SHEET, content=live(shown), every=EVERY, **extra)


def live(shown: Mapping[str, Any]) -> str:
    """Return what the page shows now, as HTML."""
    parts = [_heading(shown), _say(shown), _blocks(shown["run"]), _tiles(shown)]
    if shown["workers"]:
        parts.append(_workers(shown))
    if shown["layers"]:
        parts.append(element("h2", "Groups by layer"))
        parts.append(layers_table(shown["layers"]))
    if shown["conditions"]["last"]:
        parts.append(element("h2", "Condition numbers of the last decodes"))
        parts.append(conditions_strip(shown["conditions"]))
    return "".join(parts)


def _heading(shown: Mapping[str, Any]) -> str:
    run = shown["run"]
    if not run["id"]:
        return element("h1", "No coded run so far") + element(
            "p", text("fcdcc run … --scheduler with this scheduler's address shows here."),
            class_="faint",
        )  # fmt: skip
    words = {
        "running": "is running",
        "complete": "is complete",
        "incomplete": "is over; some blocks failed",
        "interrupted": "was interrupted",
        "failed": "ended with an error",
        "silent": "has not said anything for a while",
    }
    what = words.get(run["state"], "has coded layers in the scheduler")
    about = [run["model"], f"to {run['output']}" if run["output"] else ""]
    if run["n"] and run["delta"]:
        about.append(f"{run['n']} shares per layer, any {run['delta']} suffice")
    about.append(run["redundancy"])
    return element("h1", text(f"Run {run['id']} {what}"), data_state=run["state"], id="state") + (
        element("p", text(" · ".join(word for word in about if word)), class_="faint")
    )


def _say(shown: Mapping[str, Any]) -> str:
    troubled = any(
        worker["silent"] > 0
        or (worker["pace"] or 0) >= SLOW
        or worker["gone"] in ("removed", "lost")
        for worker in shown["workers"]
    )
    seen = any(worker["pace"] is not None for worker in shown["workers"])
    kind = "say bad" if troubled else "say" if seen else "say none"
    return element("p", text(shown["sentence"]), class_=kind, id="sentence")


def _blocks(run: Mapping[str, Any]) -> str:
    """Return the blocks as a bar, and in words."""
    total = run["blocks_total"]
    if not total:
        return ""
    parts = {
        "before": run["blocks_skipped"],
        "done": run["blocks_done"],
        "failed": run["blocks_failed"],
        "flight": run["blocks_in_flight"],
    }
    fills = "".join(
        element("i", "", class_=kind, style=f"width:{100 * number / total:.2f}%")
        for kind, number in parts.items()
        if number
    )
    done = run["blocks_done"] + run["blocks_skipped"]
    words = [
        f"{_value('blocks_done', run['blocks_done'])} done"
        + (f" and {count(run['blocks_skipped'])} before" if run["blocks_skipped"] else ""),
        f"{_value('blocks_in_flight', run['blocks_in_flight'])} in flight",
        f"{_value('blocks_failed', run['blocks_failed'])} failed",
        f"of {_value('blocks_total', total)} blocks",
    ]
    blocks, images = (rounded(run[f"{what}_per_second"]) for what in ("blocks", "images"))
    rate = f"{blocks} blocks/s, {images} images/s"
    left = f", {duration(run['seconds_left'])} left" if run["seconds_left"] is not None else ""
    return (
        element("div", fills, class_="blocks", title=f"{done} of {total} blocks")
        + element("p", ", ".join(words))
        + element("p", text(f"{rate}{left}; {duration(run['seconds'])} so far"), class_="faint")
    )


def _value(name: str, value: float | None, shown: str | None = None) -> str:
    """Return a number that a program can find and read."""
    said = text(count(value or 0) if shown is None else shown)
    return element("b", said, id=f"n-{name}", data_value="" if value is None else value)


def _tiles(shown: Mapping[str, Any]) -> str:
    counters, run, saved = shown["counters"], shown["run"], shown["saved"]
    largest = shown["conditions"]["max"]
    tiles = [
        ("groups", counters["groups"], None, "groups completed"),
        ("erasures", counters["erasures"], None, "shares not waited for"),
        ("decodes", counters["decodes"], None, "groups decoded"),
        ("parity_started", counters["parity_started"], None, "parity shares started"),
        ("extra_work", run["extra_work"], percent(run["extra_work"]), "extra work"),
        ("max_condition_number", largest, rounded(largest), "largest condition number"),
        ("workers_lost", counters["workers_lost"], None, "workers lost"),
        ("ghosts", shown["ghosts"], None, "ghosts held now"),
        ("saved", saved["seconds"], duration(saved["seconds"]), "waiting saved, at least"),
    ]
    if counters["corrupt_shares"]:
        tiles.append(("corrupt_shares", counters["corrupt_shares"], None, "wrong shares found"))
    made = [
        element("div", _value(name, value, said) + element("span", text(what)), class_="tile")
        for name, value, said, what in tiles
    ]
    return element("div", "".join(made), class_="tiles")


def _workers(shown: Mapping[str, Any]) -> str:
    """Return the map of all workers, and a table of the slowest."""
    squares = "".join(
        element(
            "i", "", class_=pace_kind(pace, ghosts, silent, SLOW),
            title=f"{address}: {times(pace)}, {ghosts} ghosts",
        )
        for address, pace, ghosts, silent in shown["paces"]
    )  # fmt: skip
    many = "map many" if len(shown["paces"]) > 120 else "map"
    workers = shown["workers"]
    rows = [_worker_row(worker) for worker in workers[:SHOWN_WORKERS]]
    more = shown["workers_total"] - SHOWN_WORKERS
    head = ["worker", "pace", "", "learned", "shares", "not waited for", "late on average"]
    head += ["worst", "ghosts"]
    return (
        element("h2", "Workers, the slowest first")
        + element("div", squares, class_=many)
        + _key()
        + table(head, rows)
        + (element("p", text(f"and {more} more"), class_="faint") if more > 0 else "")
    )


def _key() -> str:
    kinds = [
        ("even", "usual pace"),
        ("behindhand", "a little slower, or busy with a ghost"),
        ("slow", f"takes {SLOW} times as long or more"),
        ("silent", "does not answer"),
        ("", "no share yet"),
    ]
    return element(
        "p",
        "".join(element("span", element("i", "", class_=k) + text(what)) for k, what in kinds),
        class_="key",
    )


def _worker_row(worker: Mapping[str, Any]) -> str:
    pace = worker["pace"]
    slow = worker["silent"] > 0 or (pace or 0) >= SLOW
    state = "gone" if worker["gone"] else "slow" if slow else ""
    now = worker["gone"] or (f"silent for {duration(worker['silent'])}" if worker["silent"] else "")
    part = min(1.0, (pace or 0.0) / 4)
    return row(
        [
            text(worker["address"]) + (f" <small>{text(now)}</small>" if now else ""),
            times(pace),
            bar(part, f"{times(pace)} the usual time", "bad" if (pace or 0) >= SLOW else ""),
            times(worker["learned_pace"]),
            count(worker["done"]),
            count(worker["erased"]),
            duration(worker["late_mean"]) if worker["erased"] else "–",
            duration(worker["worst"]) if worker["erased"] else "–",
            count(worker["ghosts"]),
        ],
        class_=state,
    )


def layers_table(layers: Sequence[Mapping[str, Any]]) -> str:
    """Return a row per layer: time to decode against the time of the slowest share."""
    longest = max((max(r["seconds"], r["slowest"]) for r in layers), default=0.0) or 1.0
    rows = [
        row(
            [
                text(layer["layer"]),
                text(layer["name"]),
                count(layer["groups"]),
                count(layer["decodes"]),
                count(layer["erasures"]),
                duration(layer["seconds"]),
                duration(layer["slowest"]),
                bar(
                    layer["seconds"] / longest,
                    f"{duration(layer['seconds'])} to decode; the slowest share "
                    f"{duration(layer['slowest'])}",
                    second=layer["slowest"] / longest,
                ),
            ]
        )
        for layer in layers[:SHOWN_LAYERS]
    ]
    head = ["layer", "name", "groups", "decoded", "erasures", "time to decode", "slowest share", ""]
    legend = element(
        "p",
        element("span", element("i", "", class_="k-good") + "time to decode, on average")
        + element("span", element("i", "", class_="k-behind") + "slowest share, at least"),
        class_="key",
    )
    return legend + table(head, rows)


def conditions_strip(conditions: Mapping[str, Any]) -> str:
    """Return condition numbers along a logarithmic axis, with the limit."""
    limit = conditions["limit"]
    found: list[float] = [v for v in conditions["last"] if v is not None and v >= 1]
    top: float = max([10.0, *found, *([limit * 1.5] if limit else [])])
    scale = math.log10(top)
    marks = [(math.log10(value) / scale, "", rounded(value)) for value in found]
    if limit:
        marks.append((math.log10(limit) / scale, "limit", f"limit {rounded(limit)}"))
    said = f"largest of all {rounded(conditions['max'])}"
    said += f"; one more share is waited for above {rounded(limit)}" if limit else ""
    axis = element("span", "1") + element("span", text(said)) + element("span", text(rounded(top)))
    return element("div", ticks(marks) + element("div", axis, class_="axis"), class_="box")
