"""What the tasks of a block do on a worker: a module for each form of graph.

:mod:`.task_specs` describes each task, :mod:`.common` what the forms share, and
:mod:`.reading` how images are read. Workers preload this package, which imports PyTorch before the
first task arrives.
"""

from __future__ import annotations

from . import gathered_kernels, image_kernels, reading, row_kernels

__all__ = ["gathered_kernels", "image_kernels", "reading", "row_kernels"]
