"""NAMEs of networks: ``LIBRARY:NAME``, or ``package.module:function`` of the user's own.

A NAME is resolved in the user's own environment, by the libraries that are there. Nothing is
downloaded that these libraries do not download by themselves.
"""

from __future__ import annotations

from collections.abc import Callable

from ...errors import OptionError
from .function_network import function_network
from .live_network import LiveNetwork
from .timm_network import timm_network
from .torchvision_network import torchvision_network
from .transformers_network import transformers_network

Loader = Callable[[str, bool, str | None], LiveNetwork]

LOADERS: dict[str, Loader] = {
    "torchvision": torchvision_network,
    "timm": timm_network,
    "transformers": transformers_network,
}
"""What loads the networks of each library: by its name there, random weights, and weights."""


def live_network(
    name: str, *, random_weights: bool = False, weights: str | None = None
) -> LiveNetwork:
    """Return the live network that a NAME stands for.

    Parameters
    ----------
    name
        ``LIBRARY:NAME`` or ``package.module:function``.
    random_weights
        Whether the library makes the network without trained weights.
    weights
        Which trained weights, by their name in the library; None for its default.

    Raises
    ------
    OptionError
        If there is no such network, or it cannot be made.
    """
    kind, colon, rest = name.partition(":")
    if not colon or not kind or not rest:
        raise OptionError(
            f"{name!r:.100} names no network; expected torchvision:NAME, timm:NAME, "
            "transformers:FOLDER or package.module:function"
        )
    if random_weights and weights is not None:
        raise OptionError("--random-weights together with --weights: leave one of the two out")
    if kind in LOADERS:
        return LOADERS[kind](rest, random_weights, weights)
    if random_weights or weights is not None:
        option = "--random-weights" if random_weights else "--weights"
        raise OptionError(
            f"{option} with {name:.100}, which gives its network its weights itself: leave it out"
        )
    return function_network(name)
