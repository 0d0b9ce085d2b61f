"""Models: from a ``.pt2`` file to a network that can be planned and run.

``pt2`` reads a file without running any of it and turns its graph into steps. ``passes``
rewrite the steps and cut them at the convolutions into the stages of a ``network``, which
the ``interpreter`` runs. ``importer`` puts the passes in order.
"""

from __future__ import annotations

from .opening import Model, open_model

__all__ = ["Model", "open_model"]
