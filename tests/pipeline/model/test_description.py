"""Descriptions in model files: what is read, and that hostile ones are refused in one line."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import pytest
import torch
from torch import nn

from fcdcc.pipeline import open_model
from fcdcc.pipeline.errors import ModelError
from fcdcc.pipeline.model.description import (
    DESCRIPTION_FILE,
    DESCRIPTION_RECORD,
    MAX_DESCRIPTION_BYTES,
    ModelDescription,
    read_description,
)
from fcdcc.pipeline.model.opening import open_description
from support.pt2 import packed, pt2, records


@cache
def plain_file() -> bytes:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return pt2(module.eval(), (2, 3, 8, 8))


def described(text: bytes) -> bytes:
    return packed({**records(plain_file()), DESCRIPTION_RECORD: text})


FULL: dict[str, Any] = {
    "version": 1,
    "network": "torchvision:resnet50",
    "preparation": {
        "size": [224, 192],
        "fit": "torchvision",
        "resize": 256,
        "interpolation": "bicubic",
        "channel_order": "rgb",
        "value_range": [0, 1],
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
    },
    "class_names": ["cat", "dog", "crane", "crane"],
    "output": "logits",
    "versions": {"torch": "2.13.0"},
}


def test_a_description_is_read_whole_and_with_the_model() -> None:
    data = described(json.dumps(FULL).encode())
    found = open_description(data)
    assert found is not None
    assert found == open_model(data).description
    assert json.loads(found.to_json()) == FULL
    assert found.preparation.picture_form().shape == (224, 192, 3)
    assert found.preparation.picture_form().interpolation == "bicubic"


def test_a_file_without_a_description_has_none() -> None:
    assert open_description(plain_file()) is None
    assert open_model(plain_file()).description is None


def test_a_description_is_no_part_of_what_the_model_computes() -> None:
    data = described(json.dumps(FULL).encode())
    assert open_model(data).fingerprint == open_model(plain_file()).fingerprint


def test_pytorch_reads_and_writes_the_record_as_an_extra_file(tmp_path: Any) -> None:
    module = nn.Conv2d(3, 4, 3).eval()
    program = torch.export.export(module, (torch.zeros(2, 3, 8, 8),))
    path, text = tmp_path / "model.pt2", ModelDescription(class_names=("a",) * 4).to_json()
    torch.export.save(program, path, extra_files={DESCRIPTION_FILE: text})
    extra = {DESCRIPTION_FILE: ""}
    torch.export.load(path, extra_files=extra)
    assert extra[DESCRIPTION_FILE] == text
    found = open_description(path)
    assert found is not None
    assert found.class_names == ("a",) * 4


def changed(**members: Any) -> bytes:
    return json.dumps({**FULL, **members}).encode()


def prepared(**members: Any) -> bytes:
    return changed(preparation={**FULL["preparation"], **members})


HOSTILE = {
    "no JSON": (b"\x80\x02cos\nsystem\n", "description"),
    "no object": (b"[1]", "JSON object"),
    "another version": (changed(version=2), "version 2"),
    "a version that is true": (changed(version=True), "version"),
    "no version": (b"{}", "version None"),
    "deep": (b"[" * 100_000 + b"]" * 100_000, "description"),
    "a member twice": (b'{"version": 1, "version": 1}', "twice"),
    "an unknown member": (changed(**{"run\x1b\nthis": "__import__('os')"}), "run� this"),
    "NaN": (b'{"version": 1, "preparation": {"mean": [NaN]}}', "NaN"),
    "infinity": (b'{"version": 1, "preparation": {"mean": [1e999]}}', "mean"),
    "a number of many digits": (b'{"version": ' + b"9" * 10_000 + b"}", "description"),
    "a huge mean": (prepared(mean=[1e300] * 3), "mean"),
    "a text as mean": (prepared(mean=["__import__('os').system('true')"] * 3), "mean"),
    "no mean": (prepared(mean=[]), "mean"),
    "means of two lengths": (prepared(mean=[0.5, 0.5]), "channels"),
    "too many means": (prepared(mean=[0.5] * 10_000), "mean"),
    "a standard deviation of 0": (prepared(std=[0.0, 1.0, 1.0]), "std"),
    "a tiny standard deviation": (prepared(std=[1e-300] * 3), "std"),
    "a huge size": (prepared(size=[2**40, 2**40]), "size"),
    "a negative size": (prepared(size=[-1, 8]), "size"),
    "a size of one number": (prepared(size=[8]), "size"),
    "a size with a fraction": (prepared(size=[8.5, 8]), "size"),
    "a size that is true": (prepared(size=[True, 8]), "size"),
    "a huge resize": (prepared(resize=10**12), "resize"),
    "a resize below the size": (prepared(resize=8), "shorter side"),
    "an unknown fit": (prepared(fit="exec"), "fit"),
    "an unknown filter": (prepared(interpolation="__class__"), "interpolation"),
    "an odd range": (prepared(value_range=[-1, 1]), "value_range"),
    "an empty range": (prepared(value_range=[0, 0]), "value_range"),
    "grey with three means": (prepared(channel_order="grey"), "channels"),
    "no class names": (changed(class_names=[]), "class_names"),
    "numbers as class names": (changed(class_names=[1, 2, 3, 4]), "class_names"),
    "escapes in a class name": (changed(class_names=["\x1b[31m", "b", "c", "d"]), "class_names"),
    "half a character": (changed(class_names=["\ud800", "b", "c", "d"]), "description"),
    "a long class name": (changed(class_names=["a" * 10_000, "b", "c", "d"]), "class_names"),
    "an empty class name": (changed(class_names=[" ", "b", "c", "d"]), "class_names"),
    "an unknown output": (changed(output="pickle"), "output"),
    "versions that are a list": (changed(versions=["2.13"]), "versions"),
    "a class too many": (changed(class_names=["a"] * 5), "names 5 classes"),
    "other channels": (prepared(channel_order="grey", mean=[0.5], std=[0.5]), "1 channels"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_descriptions_are_refused_in_one_line(name: str) -> None:
    text, words = HOSTILE[name]
    with pytest.raises(ModelError, match="description") as refused:
        open_model(described(text))
    message = str(refused.value)
    assert words in message
    assert len(message) < 500
    assert "\n" not in message


def test_a_record_that_is_too_large_is_not_parsed() -> None:
    text = b'{"version": 1, "network": "' + b"a" * MAX_DESCRIPTION_BYTES + b'"}'
    with pytest.raises(ModelError, match="expected at most"):
        open_description(described(text))


def test_all_members_are_optional() -> None:
    found = read_description(b'{"version": 1}', "model.pt2")
    assert found == ModelDescription()
    assert found.preparation.channels is None
