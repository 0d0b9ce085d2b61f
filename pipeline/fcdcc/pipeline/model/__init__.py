"""Models: from a ``.pt2`` file to a network that can be planned and run.

A file is read without running anything of it (``archive``), its graph made into steps
(``program``, ``passes``), cut at its convolutions into the stages of a ``network``, and run
by the ``interpreter``.
"""

from __future__ import annotations

from .model import Model, open_model

__all__ = ["Model", "open_model"]
