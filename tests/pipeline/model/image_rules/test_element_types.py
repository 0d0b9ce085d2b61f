"""Types that the table allows are those for which PyTorch has kernels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from fcdcc.pipeline.model.image_rules.facts import Facts
from fcdcc.pipeline.model.operator_list import CALLED
from support.operator_programs import accepted, as_list, run
from support.operator_samples import Constant, Images, Sample, sample

TYPES = (
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.uint8, torch.int8),
    *(torch.int16, torch.int32, torch.int64, torch.bool, torch.complex64, torch.complex128),
)


def of_type(value: Any, old: torch.dtype, new: torch.dtype) -> Any:
    """The argument with its tensors of one type in another."""
    if isinstance(value, (Images, Constant)):
        below = 2 if new == torch.bool else value.below
        return replace(value, dtype=new, below=below) if value.dtype == old else value
    return [of_type(item, old, new) for item in value] if isinstance(value, list) else value


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("op", sorted(CALLED))
def test_operators_run_on_the_types_that_their_rules_allow(op: str) -> None:
    call = sample(op)
    tensors = call.tensors()
    if not tensors:
        return
    types = [tensor.dtype for tensor in tensors]
    old = torch.float32 if torch.float32 in types else types[0]
    for new in TYPES:
        kwargs = {name: of_type(value, old, new) for name, value in call.kwargs.items()}
        other = Sample(op, tuple(of_type(value, old, new) for value in call.args), kwargs)
        facts = accepted(other)
        if facts is None:
            continue
        try:
            results = as_list(run(other, (0, 1, 2)))
        except RuntimeError as error:
            if "ZeroDivision" not in str(error):
                raise
            continue
        for result, fact in zip(results, as_list(facts), strict=True):
            if isinstance(fact, Facts):
                assert result.dtype == fact.dtype, other
