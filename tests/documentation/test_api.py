"""Public names: each is on the API page and has an example, and options are real keywords."""

from __future__ import annotations

import doctest
import importlib
import inspect
import re
from pathlib import Path

import pytest
from pydantic.fields import FieldInfo

from fcdcc.pipeline import JobConfig, infer, plan
from fcdcc.pipeline.options import PlanKeywords, PlanOptions

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "api.md").read_text("utf-8")
MODULES = ("fcdcc.coding", "fcdcc.pipeline", "fcdcc.pipeline.anyk")
NAMES = [(module, name) for module in MODULES for name in importlib.import_module(module).__all__]
WITHOUT_DOCSTRING = {"__version__", "Split", "ERASED"}
"""A text, a type and a marker: the page says in words what they are."""


def test_the_page_lists_the_public_names_and_no_others() -> None:
    listed = set(re.findall(r"^\.\. auto\w+:: (\S+)$", PAGE, re.MULTILINE))
    words = {f"{module}.{name}" for module, name in NAMES if name in WITHOUT_DOCSTRING}
    assert all(f"`{name}`" in PAGE for name in words)
    assert listed | words == {f"{module}.{name}" for module, name in NAMES}


@pytest.mark.parametrize(
    ("module", "name"), [found for found in NAMES if found[1] not in WITHOUT_DOCSTRING]
)
def test_a_public_name_has_a_docstring_with_an_example(module: str, name: str) -> None:
    """That the examples run is tested with all docstrings of the sources."""
    found = getattr(importlib.import_module(module), name)
    text = inspect.getdoc(found) or ""
    examples = doctest.DocTestParser().get_examples(text)
    assert examples
    assert len(text.splitlines()) > len(examples)


def test_the_keywords_are_the_options_of_a_plan() -> None:
    assert set(PlanKeywords.__annotations__) == set(PlanOptions.model_fields)
    for function in (plan, infer):
        shown = inspect.signature(function).parameters
        assert not [p for p in shown.values() if p.kind is p.VAR_KEYWORD]
        for name, field in PlanOptions.model_fields.items():
            assert shown[name].kind is shown[name].KEYWORD_ONLY
            assert shown[name].default == field.default
    assert list(inspect.signature(infer).parameters)[:3] == ["model", "images", "plan"]


def test_jobconfig_has_a_signature_and_describes_every_option() -> None:
    fields: dict[str, FieldInfo] = JobConfig.model_fields
    assert set(inspect.signature(JobConfig).parameters) == set(fields)
    text = inspect.getdoc(JobConfig) or ""
    for name, field in fields.items():
        assert f"\n{name}\n    {field.description}\n" in text


def test_type_checkers_know_the_keywords() -> None:
    for function in (plan, infer):
        code = inspect.unwrap(function)
        assert code.__annotations__["options"] == f"Unpack[{PlanKeywords.__name__}]"
