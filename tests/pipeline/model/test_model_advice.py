"""What a message about a model says to do is done, and the model is taken."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from fcdcc.pipeline import open_model
from fcdcc.pipeline.errors import ModelError
from support.modules import Lambda, conv

SHAPE = (2, 3, 8, 8)


class Counting(nn.Module):
    """Counts its calls while it is in training, or always."""

    count: Tensor

    def __init__(self, *, always: bool) -> None:
        super().__init__()
        self.conv, self.always = conv(3, 4, 3), always
        self.register_buffer("count", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        if self.training or self.always:
            self.count.add_(1)
        return self.conv(x)


def normalised(*, tracked: bool = True) -> nn.Module:
    return nn.Sequential(conv(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=tracked))


def cond(x: Tensor, c: nn.Module) -> Tensor:
    return torch.cond(x.sum() > 0, lambda v: v + 1, lambda v: v - 1, (c(x),))


def lower_precision(x: Tensor, c: nn.Module) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return c(x)


def changed_in_place(x: Tensor, c: nn.Module) -> Tensor:
    y = c(x)
    copied_perhaps = y.transpose(1, 2).reshape(y.shape[0], -1)
    copied_perhaps.relu_()
    return y


def layer(function: Callable[..., object]) -> nn.Module:
    return Lambda(function, c=conv(3, 4, 3)).eval()


def exported(module: nn.Module, dtype: torch.dtype = torch.float32) -> torch.export.ExportedProgram:
    batch = ({0: torch.export.Dim("batch")},)
    return torch.export.export(module, (torch.zeros(SHAPE, dtype=dtype),), dynamic_shapes=batch)


def taken_apart(module: nn.Module) -> torch.export.ExportedProgram:
    return exported(module).run_decompositions({})


Program = Callable[[], torch.export.ExportedProgram]

ADVICE: dict[str, tuple[Program, str, tuple[Program, ...]]] = {
    "normalisation in training": (
        lambda: exported(normalised().train()),
        r"call model\.eval\(\) before the export",
        (lambda: exported(normalised().eval()),),
    ),
    "dropout in training": (
        lambda: exported(nn.Sequential(conv(3, 4, 3), nn.Dropout()).train()),
        r"call model\.eval\(\) before the export",
        (lambda: exported(nn.Sequential(conv(3, 4, 3), nn.Dropout()).eval()),),
    ),
    "statistics of each batch": (
        lambda: exported(normalised(tracked=False).eval()),
        "make the layer with track_running_stats=True",
        (lambda: exported(normalised(tracked=True).eval()),),
    ),
    "random numbers": (
        lambda: exported(layer(lambda x, c: c(x) + torch.rand(1))),
        r"call model\.eval\(\) before the export, or take that step out",
        (lambda: exported(layer(lambda x, c: c(x))),),
    ),
    "counting in training": (
        lambda: exported(Counting(always=False).train()),
        r"call model\.eval\(\) before the export",
        (lambda: exported(Counting(always=False).eval()),),
    ),
    "counting always": (
        lambda: exported(Counting(always=True).eval()),
        "or take that step out",
        (lambda: exported(Counting(always=False).eval()),),
    ),
    "outputs that are of no image": (
        lambda: exported(layer(lambda x, c: (c(x).sum(), c(x).mean((0, 2, 3))))),
        "return the prediction from forward",
        (lambda: exported(layer(lambda x, c: (c(x).sum(), c(x)))),),
    ),
    "changes in place": (
        lambda: exported(layer(changed_in_place)),
        r"torch\.export\.export\(\.\.\.\)\.run_decompositions\(\{\}\)",
        (lambda: taken_apart(layer(changed_in_place)),),
    ),
    "control flow": (
        lambda: exported(layer(cond)),
        "write the model without it",
        (lambda: exported(layer(lambda x, c: c(x) + torch.sign(x.mean((1, 2, 3), True)))),),
    ),
    "autocast": (
        lambda: exported(layer(lower_precision)),
        "leave autocast out when exporting",
        (lambda: exported(layer(lambda x, c: c(x))),),
    ),
}


def saved(program: torch.export.ExportedProgram) -> bytes:
    file = BytesIO()
    torch.export.save(program, file)
    return file.getvalue()


# Said by PyTorch while it traces torch.cond, and of its own code in run_decompositions.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
@pytest.mark.filterwarnings("ignore:.isinstance.treespec:FutureWarning")
@pytest.mark.parametrize(("refused", "words", "mended"), ADVICE.values(), ids=ADVICE)
def test_advice_about_models(refused: Program, words: str, mended: tuple[Program, ...]) -> None:
    with pytest.raises(ModelError, match=words):
        open_model(saved(refused()))
    for program in mended:
        assert open_model(saved(program())).network.convolutions


def test_advice_about_files_that_are_no_models(tmp_path: Path) -> None:
    module = nn.Sequential(conv(3, 4, 3)).eval()
    torch.save(module.state_dict(), tmp_path / "weights.pt2")
    for name in ("weights.pt2", "missing.pt2"):
        with pytest.raises(ModelError, match=r"a file written by torch\.export\.save"):
            open_model(tmp_path / name)
    torch.export.save(exported(module), tmp_path / "model.pt2")
    assert open_model(tmp_path / "model.pt2").network.convolutions
