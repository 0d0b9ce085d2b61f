"""What the tasks of a block do on a worker.

Workers preload this package, which imports torch before the first task arrives.
"""

from __future__ import annotations

from . import gathered_kernels, image_kernels, reading, recheck_kernels, row_kernels

__all__ = ["gathered_kernels", "image_kernels", "reading", "recheck_kernels", "row_kernels"]
