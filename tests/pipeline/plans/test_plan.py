"""Plans as values: saved, loaded in this version and in older ones, and shown."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from fcdcc.pipeline import Plan, open_model
from fcdcc.pipeline.errors import PlanError
from fcdcc.pipeline.formatting import counted, duration
from fcdcc.pipeline.options import PlanOptions
from fcdcc.pipeline.planner.search import choose_plan
from fcdcc.pipeline.plans.display import print_plan
from fcdcc.pipeline.plans.forecast import Speeds, WorkerPool
from support.jobs import fcdcc
from support.small import SHAPE, Files

OLD_PLANS = sorted((Path(__file__).parent / "data").glob("plan-*.json"))

FORMS = [
    ("rows", {"split": "rows"}),
    ("images", {"split": "images"}),
    ("gathered", {"code": "crme"}),
]


def planned(files: Files, **options: object) -> Plan:
    """Return the plan of the small network for 50 images on six workers of default speed."""
    network = open_model(files.model).network
    return choose_plan(network, SHAPE, PlanOptions.of(**options), 50, speeds=Speeds())


@pytest.mark.parametrize(("form", "options"), FORMS)
def test_a_saved_plan_is_the_plan(files: Files, form: str, options: dict[str, str]) -> None:
    plan = planned(files, **options)
    assert plan.form == form
    assert plan.forecast is not None
    assert Plan.from_json(plan.to_json()) == plan


@pytest.mark.parametrize("path", OLD_PLANS, ids=lambda path: path.stem)
def test_a_plan_of_an_older_version_is_the_plan_of_this_one(files: Files, path: Path) -> None:
    old, plan = Plan.from_json(path.read_bytes()), planned(files, split="rows")
    assert old == plan
    assert old.fingerprint == plan.fingerprint
    assert Plan.from_json(old.to_json()) == old


@pytest.mark.parametrize(("form", "options"), FORMS)
def test_the_form_of_an_older_plan_follows_from_its_layers(
    files: Files, form: str, options: dict[str, str]
) -> None:
    plan = planned(files, **options)
    saved = json.loads(plan.to_json())
    for name in ("form", "forecast", "objective"):
        del saved[name]
    saved |= {"format": 2, "placement": {"order": list(range(6))}}
    old = Plan.from_json(json.dumps(saved))
    assert old.form == form
    assert old.forecast is None
    assert old.fingerprint == plan.fingerprint
    assert "any 4 of 6 shares suffice" in str(old)
    assert f"by {plan.split}" in str(old)
    assert "first" in old._repr_html_()


def test_plans_that_cannot_be_used_are_refused_in_words(files: Files) -> None:
    saved = json.loads(planned(files, split="rows").to_json())
    for change, message in (
        ({"format": 4, "layers": None}, "has format 4; this version reads up to 3: update fcdcc"),
        ({"form": "gathered"}, "has the form 'gathered' and its layers are planned for 'rows'"),
        ({"form": "round"}, "not a saved plan: form: Input should be 'gathered', 'rows' or 'ima"),
        ({"layers": 3}, "not a saved plan: layers: "),
    ):
        with pytest.raises(PlanError, match=re.escape(message)):
            Plan.from_json(json.dumps(saved | change))
    for text in ("{", "[]", "3", b"\xff"):
        with pytest.raises(PlanError, match="not a saved plan"):
            Plan.from_json(text)


def test_a_plan_hides_no_field_from_its_fingerprint(files: Files) -> None:
    """What is only about the forecast leaves the fingerprint as it is, all else changes it."""
    plan = planned(files, split="rows")
    saved = json.loads(plan.to_json())
    other = Plan.from_json(json.dumps(saved | {"forecast": None, "warnings": ["beware"]}))
    assert other.fingerprint == plan.fingerprint
    for change in ({"batch": 63}, {"verify": "all"}, {"redundancy": "eager"}, {"in_flight": 9}):
        assert Plan.from_json(json.dumps(saved | change)).fingerprint != plan.fingerprint


def printed(plan: Plan, width: int) -> list[str]:
    """Return a plan as a terminal of this width shows it."""
    console = Console(file=io.StringIO(), width=width, force_terminal=True, no_color=True)
    print_plan(plan, console)
    assert isinstance(console.file, io.StringIO)
    return re.sub(r"\x1b\[[0-9;]*m", "", console.file.getvalue()).splitlines()


@pytest.mark.parametrize("width", [80, 120])
def test_the_table_fits_the_terminal(files: Files, width: int) -> None:
    workers = WorkerPool(6, memory=4 * 10**9)
    plan = choose_plan(
        open_model(files.model).network, SHAPE, PlanOptions.of(split="rows"), 50, workers, Speeds()
    )
    lines = printed(plan, width)
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    assert "…" not in text
    assert all(name in text for name in ("layer", "k_a × k_b", "work", "memory", "condition"))
    assert ("channels, kernel, size" in text) == (width >= 100)
    said = " ".join(text.split())
    assert "of 6 workers 2 may be lost at a time" in said
    assert "Plain data-parallel inference takes about" in said


def said_of(plan: Plan, **beside: float) -> str:
    console = Console(file=io.StringIO(), width=10_000)
    print_plan(plan, console, **beside)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_plan_without_redundancy_does_not_speak_of_parity(files: Files) -> None:
    plan = planned(files, n=1, tolerate=0)
    for said in (said_of(plan), str(plan), plan._repr_html_()):
        assert "parity starts" not in said
    assert "There is no redundancy" in said_of(plan)
    assert "redundancy: none" in str(plan)
    assert "parity starts when a share is late" in str(planned(files, n=3, tolerate=1))


def test_a_plan_speaks_of_protection(files: Files) -> None:
    """What a share computes on the way to a coded convolution is protected with it."""
    plan = planned(files, split="images", batch=8, n=3, tolerate=1)
    one, other = plan.layers
    text = said_of(plan)
    points = sum(layer.code is not None for layer in (one, other))
    assert f"All 2 convolutions are protected, checked at {counted(points, 'point')}: any 2" in text
    assert "Not protected" not in text
    assert "One lost worker costs up to about" in text
    whole = replace(one, code=None, reason="its input has no rows to split: run whole")
    part = replace(plan, layers=(whole, replace(other, code=other.code or one.code, reason="")))
    text = said_of(part)
    assert text.startswith("1 of 2 convolutions are protected, checked at 1 point")
    assert "Not protected: first: its input has no rows to split: run whole." in text


def test_a_plan_as_text_speaks_as_the_table_does(files: Files) -> None:
    plan = planned(files, split="images", batch=8, n=3, tolerate=1)
    assert [layer.code is None for layer in plan.layers] == [True, False]
    first, _, _, *layers = [line for line in str(plan).splitlines() if "predicts" not in line]
    assert said_of(plan).startswith(f"{first}\n")
    assert layers[0].endswith(f"in the share of layer {plan.layers[1].layer}")
    assert layers[1].strip().startswith(f"{plan.layers[1].layer} ")
    assert "not protected" not in str(plan)
    assert repr(plan) == f"<Plan: {first}; blocks of 8 images, split by images>"


def test_a_plan_as_text_has_costs_losses_and_the_workers_it_is_for(files: Files) -> None:
    plan = planned(files, split="rows", n=6, tolerate=2)
    for told in (str(plan), plan._repr_html_()):
        for words in ("Sent between workers", "a worker needs at most", "images a second",
                      "2 may be lost", "up to about", "Plain data-parallel inference",
                      "The plan is for 6 workers. Other workers may lead to "):  # fmt: skip
            assert words in told
    assert f"blocks of {plan.batch} images ({plan.batch_reason}), up to {plan.in_flight} bl" in str(
        plan
    )
    assert "The plan is for" not in said_of(plan)
    assert plan.forecast is not None
    threads = replace(plan.forecast, workers=WorkerPool(6, in_one_process=True))
    assert (
        "2 of them may be late or fail. The workers are threads of one process, which must not be "
        "lost."
    ) in str(replace(plan, forecast=threads))


def test_a_lost_worker_costs_no_more_than_the_blocks_that_there_are(files: Files) -> None:
    plan = planned(files, n=6, tolerate=2, batch=25, in_flight=8)
    assert plan.forecast is not None
    text = said_of(plan)
    assert "in place of the 2 shares that it has of 2 blocks in flight. If it stops" in text
    many = replace(plan, forecast=replace(plan.forecast, images=None))
    assert "the 6 shares that it has of 8 blocks in flight" in said_of(many)


def test_what_workers_send_each_other_is_said_in_sentences(files: Files) -> None:
    plan = planned(files)
    assert plan.forecast is not None
    rest = "what one worker has computed or read and another needs."
    images = "images: a worker that reads a stored chunk sends the others what they need of it."
    for block, read, said in (
        (
            0.0,
            0.0,
            "Sent between workers: nothing, unless several workers need images of one stored",
        ),
        (9e6, 0.0, f" a block. That is {rest}"),
        (0.0, 9e6, f" a block. All of that is {images}"),
        (9e6, 9e6, f"is {images} The rest is {rest}"),
    ):
        forecast = replace(plan.forecast, block_bytes=block, read_bytes=read)
        assert said in said_of(replace(plan, forecast=forecast))


def test_work_that_is_shown_as_nothing_is_not_said(files: Files) -> None:
    plan = planned(files)
    assert plan.forecast is not None
    for extra, is_said in ((0.0004, False), (0.02, True)):
        text = said_of(replace(plan, forecast=replace(plan.forecast, extra_work=extra)))
        assert ("more than the network's own" in text) == is_said


def test_a_lost_worker_costs_no_time_where_the_others_use_its_cores(files: Files) -> None:
    plan = planned(files, n=4, tolerate=2)
    assert plan.forecast is not None
    for cores, hosts, expected in (
        (2.0, 1, "takes about as long, since the others use its part of the cores"),
        (4.0, 1, "takes 33 % longer"),
        (2.0, 4, "takes 33 % longer"),
        (3.5, 1, "takes 17 % longer"),
    ):
        forecast = replace(
            plan.forecast, workers=WorkerPool(4, hosts=hosts), speeds=Speeds(parallel=cores)
        )
        assert expected in said_of(replace(plan, forecast=forecast))


def test_the_price_of_a_plan_agrees_with_the_times_beside_it(files: Files) -> None:
    plan = planned(files, batch=10)
    assert plan.forecast is not None
    per_block = 4.96 * plan.batch / 50
    forecast = replace(
        plan.forecast, ends=(per_block,), block_seconds=per_block, plain_seconds=4.84
    )
    text = said_of(replace(plan, forecast=forecast))
    assert "about 4.8 s for 50 images, this plan 5.0 s" in text
    assert "would cost it more than 200 ms" in text


def test_without_redundancy_nothing_is_called_protected(files: Files) -> None:
    for options in ({"redundancy": "off"}, {"n": 1}):
        text = said_of(planned(files, **options))
        assert text.startswith("None of 2 convolutions is protected: lost work is computed again")
        assert "One lost worker costs" not in text


def test_the_option_that_makes_a_run_plain_does_so(files: Files) -> None:
    plan = planned(files, split="rows", redundancy="eager")
    assert plan.forecast is not None
    slow = replace(plan, forecast=replace(plan.forecast, plain_seconds=0.001))
    beside = said_of(slow, start_and_end_seconds=1000.0)
    assert "redundancy costs next to nothing while all workers are healthy" in beside
    text = said_of(slow)
    (option,) = re.findall(r"plain inference, --n (\d+), is the better choice unless", text)
    assert "plain inference, n=1, is the better choice unless" in slow._repr_html_()
    plain = planned(files, n=int(option))
    assert (plain.n, plain.protected_layers) == (1, frozenset())
    assert "better choice" not in said_of(plain)


def test_times_contain_start_and_end(files: Files) -> None:
    plan = planned(files)
    assert plan.forecast is not None
    work = plan.forecast.seconds_of(50, plan.batch)
    text = said_of(plan, start_and_end_seconds=60.0)
    whole = re.escape(duration(work + 60))
    assert re.search(rf"Time: about {whole} for 50 images, of which start and end 1 min 0 s", text)
    assert re.search(rf"for 50 images with start and end, this plan {whole}", text)


def test_the_size_of_a_block_has_a_reason(files: Files) -> None:
    assert "Blocks: 8 images (as given)" in said_of(planned(files, batch=8))
    plan = planned(files, split="images")
    assert f"({plan.batch // plan.delta} for each of {plan.delta} shares)" in said_of(plan)
    blocks = r"Blocks: \d+ images \(\w.*\), up to \d+ blocks in flight"
    assert re.search(blocks, said_of(planned(files)))


def test_a_plan_as_a_page_has_the_model_and_the_images(files: Files, tmp_path: Path) -> None:
    page = tmp_path / "plan.html"
    result = fcdcc("plan", files.model, files.images, "--html", page, "--workers", 2)
    assert result.exit_code == 0, result.output
    text = page.read_text("utf-8")
    assert text.startswith("<!DOCTYPE html>")
    assert f"<title>Plan for {files.model}</title>" in text
    assert f"Images: {files.images}" in text
    assert "of which start and end" in text
    assert text.count("<tr") == 3
    words = text[text.index("What these words mean") :]
    assert all(f"<dt>{word}</dt>" in words for word in ("share", "protected", "point", "condition"))
    assert "plugin" not in text


def test_the_table_says_of_each_convolution_whether_it_is_protected(files: Files) -> None:
    for tolerate in (2, 0):
        plan = planned(files, n=6, tolerate=tolerate, split="images")
        first, second = (re.search(rf"^ *\d+ +{name} .*", "\n".join(printed(plan, 120)), re.M)
                         for name in ("first", "second"))  # fmt: skip
        assert first is not None
        assert second is not None
        point = max(plan.coded_layers)
        told = (f" at layer {point} ", " here ") if tolerate else (" no ", " no ")
        assert told[0] in first[0]
        assert told[1] in second[0]
        words = " ".join(said_of(plan).split())
        assert "condition: the condition number after the worst loss" in words


def test_what_is_lost_with_workers_and_machines() -> None:
    assert WorkerPool(6, hosts=3).hosts_lost(6, 2) == 1
    assert WorkerPool(6, hosts=1).hosts_lost(6, 2) == 0
    assert WorkerPool(3).lost(6, 2) == 1


def test_a_plan_in_a_notebook(files: Files) -> None:
    plan = choose_plan(open_model(files.model).network, SHAPE, PlanOptions.of(), 50)
    shown = plan._repr_html_()
    assert shown.count("<tr") == 1 + len(plan.layers)
    assert "first" in shown
    assert "Plain data-parallel inference" in shown


def test_names_of_a_model_are_no_markup(files: Files) -> None:
    plan = planned(files, split="rows")
    first = replace(plan.layers[0], name="<script>alert(1)</script>[bold]")
    named = replace(plan, layers=(first, *plan.layers[1:]))
    assert "<script>" not in named._repr_html_()
    assert "&lt;script&gt;alert(1)" in named._repr_html_()
    assert "<script>alert(1)</script>[bold]" in str(named)
    assert "[bold]" in "\n".join(printed(named, 200))
