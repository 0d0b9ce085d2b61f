"""How the picture of a run looks: sizes, colours and hatching.

The colours are from M. Okabe and K. Ito's set, which everybody can tell apart, with or without
colour vision; what must not be missed is hatched too.
"""

from __future__ import annotations

from dataclasses import dataclass

from matplotlib import colormaps
from matplotlib.colors import to_hex

from .timeline import Timeline

__all__ = [
    "DPI",
    "ERASED",
    "FAINT",
    "HEIGHT",
    "INK",
    "LANE_TINT",
    "LAYER_COLOURS",
    "LEFT",
    "LOST",
    "REMOVED_TINT",
    "SPAN",
    "STOPPED_TINT",
    "WIDTH",
    "Look",
    "fault_colour",
    "layer_colours",
]

WIDTH, HEIGHT = 1200, 700
"""Of the picture, in pixels."""

DPI = 100

LEFT, SPAN = 0.085, 0.895
"""Where the axes begin and how wide they are, in parts of the width."""

LAYER_COLOURS = ("#0072B2", "#56B4E9", "#009E73", "#CC79A7")
STOPPED_TINT, REMOVED_TINT, LANE_TINT = "#FBE3D5", "#D9D9D9", "#F4F4F4"
INK, FAINT, VERMILION = "#222222", "#6B6B6B", "#D55E00"


@dataclass(frozen=True)
class Look:
    """How bars of one kind look."""

    face: str
    edge: str = "white"
    hatch: str = ""


ERASED = Look("#FFF4EC", VERMILION, "/////")
LOST = Look("#EEEEEE", "#555555", "xxxxx")


def layer_colours(timeline: Timeline) -> dict[int, str]:
    """Return a colour per layer: a few that differ clearly, or many in order."""
    layers = sorted({share.layer for share in timeline.shares})
    if len(layers) <= len(LAYER_COLOURS):
        return dict(zip(layers, LAYER_COLOURS, strict=False))
    shades = colormaps["viridis"].resampled(len(layers))
    return {layer: to_hex(shades(i)) for i, layer in enumerate(layers)}


def fault_colour(kind: str) -> str:
    """Return the colour of what was done to a worker, or of what came of it."""
    return VERMILION if kind in ("stopped", "killed", "lost") else FAINT
