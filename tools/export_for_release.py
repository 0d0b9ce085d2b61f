"""Export a small network with the installed PyTorch, to be read by tests with another release.

    python -m venv /tmp/old && /tmp/old/bin/pip install torch==2.9.1 numpy
    /tmp/old/bin/python tools/export_for_release.py tests/pipeline/model/data

It writes ``network-VERSION.pt2``. Weights are numbers that every release computes alike, so that a
test can compare the file's network with this module.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn

SIZE = 24
"""Side of the images of the export, in pixels."""


class Residual(nn.Module):
    """Two convolutions with batch normalisation and a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, groups=2)

    def forward(self, images: Tensor) -> Tensor:
        """Return (n, channels, y, x)."""
        made: Tensor = self.second(torch.relu(self.norm(self.first(images))))
        return nn.functional.hardswish(images + made)


class Network(nn.Module):
    """A classifier with the operators that many networks have: (n, 3, 24, 24) to (n, 5)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 5, stride=2, padding=2), nn.SiLU(), nn.Dropout())
        self.body = Residual(8)
        self.pool = nn.MaxPool2d(2)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 5)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits."""
        found = self.pool(self.body(self.stem(images)))
        tokens = found.flatten(2).transpose(1, 2)
        mixed, _ = self.attention(tokens, tokens, tokens, need_weights=False)
        logits: Tensor = self.head(self.norm(tokens + mixed).mean(1))
        return logits


def network() -> Network:
    """Return the network in evaluation mode, with the same weights in every release."""
    made = Network().eval()
    with torch.no_grad():
        for number, (name, tensor) in enumerate(sorted(made.state_dict().items())):
            if tensor.dtype != torch.float32:
                continue
            count = torch.arange(tensor.numel(), dtype=torch.float64)
            values = torch.remainder(count * 37 + number * 11, 64) / 64 - 0.5
            if name.endswith("running_var"):
                values = values + 1
            tensor.copy_(values.reshape(tensor.shape).to(torch.float32) * 0.5)
    return made


def main() -> None:
    """Export the network to the folder that is given."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    version = torch.__version__.partition("+")[0]
    batch = {0: torch.export.Dim("batch")}
    images = torch.zeros(2, 3, SIZE, SIZE)
    program = torch.export.export(network(), (images,), dynamic_shapes=(batch,))
    folder.mkdir(parents=True, exist_ok=True)
    torch.export.save(program, folder / f"network-{version}.pt2")


if __name__ == "__main__":
    main()
