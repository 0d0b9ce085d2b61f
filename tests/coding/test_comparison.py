from __future__ import annotations

import json
import math

import pytest

from fcdcc.coding import ConvGeometry
from fcdcc.coding.comparison import VARIANTS, compare_codes

LAYER = ConvGeometry.of((1, 8, 12, 12), (32, 8, 3, 3), padding=1)


def test_a_row_for_every_code_and_what_it_says_is_true() -> None:
    rows = {row.label: row for row in compare_codes(6, 4, geometry=LAYER)}
    assert list(rows) == [variant.label for variant in VARIANTS]
    ours, paper = rows["systematic"], rows["crme"]
    assert ours.conditions.method == "all"
    assert ours.conditions.worst < paper.conditions.worst < rows["chebyshev"].conditions.worst
    assert ours.decoding_none_lost == 0 < ours.decoding < paper.decoding_none_lost
    assert ours.work == paper.work
    assert ours.total_work == pytest.approx(1.5)
    assert rows["replication"].total_work == pytest.approx(3.0)
    for row in rows.values():
        assert 0 <= row.float64.random < 1e-26
        assert 0 < row.float32.random < 1e-10
    assert rows["uncoded"].tolerance == 0
    assert json.loads(json.dumps(ours.to_dict(), allow_nan=False))["label"] == "systematic"


def test_codes_that_do_not_exist_for_the_numbers_are_left_out() -> None:
    labels = [row.label for row in compare_codes(7, 5, geometry=LAYER, sets=1)]
    assert "replication" not in labels
    assert "systematic" in labels


def test_what_is_not_finite_is_none_in_json() -> None:
    row = compare_codes(6, 4, geometry=LAYER, sets=1)[0]
    assert row.to_dict()["float32"]["worst"] is not None
    object.__setattr__(row, "decoding", math.nan)
    assert row.to_dict()["decoding"] is None
