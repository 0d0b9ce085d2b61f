"""An executable on its way to the workers: its weights travel once per machine where they can.

Pickled, an executable is a few kilobytes of description and the bytes of its weights. Workers on
the machine of the client map these bytes from memory that the client shares, so that they are
neither sent nor copied. Other workers get them with the description.

Importing this module does not import PyTorch, which workers do when they unpack.
"""

from __future__ import annotations

import mmap
import os
import pickle
import weakref
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .executable import Executable

ALIGNMENT = 64
"""Bytes at whose multiples the weights of each tensor begin: a cache line."""

PROTOCOL = 5
"""Version of pickle from which on large buffers may travel beside the description."""


@dataclass(frozen=True)
class SharedBytes:
    """Memory of a process, as others on its machine find it.

    Parameters
    ----------
    process, descriptor
        Id of the process, and the descriptor that the memory has there.
    size
        Bytes.
    """

    process: int
    descriptor: int
    size: int

    def open(self) -> mmap.mmap:
        """Map the memory; what is written to the mapping stays in this process.

        Raises
        ------
        OSError
            If it cannot be reached.
        """
        path = f"/proc/{self.process}/fd/{self.descriptor}"
        opened = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return mmap.mmap(opened, self.size, access=mmap.ACCESS_COPY)
        finally:
            os.close(opened)


@dataclass(frozen=True)
class PackedExecutable:
    """A pickled executable.

    Parameters
    ----------
    fingerprint
        Of the executable.
    description
        The pickle, without its buffers.
    buffers
        Beginning and length of each buffer in ``shared``; or the buffers themselves, where
        ``shared`` is None.
    shared
        The memory with the buffers.
    """

    fingerprint: str
    description: bytes
    buffers: tuple[tuple[int, int], ...] | tuple[pickle.PickleBuffer, ...]
    shared: SharedBytes | None = None

    def unpack(self) -> Executable:
        """Return the executable. This imports PyTorch.

        Raises
        ------
        OSError
            If the shared memory cannot be reached.
        """
        parts: list[Any] = list(self.buffers)
        if self.shared is not None:
            memory = memoryview(self.shared.open())
            parts = [memory[first : first + size] for first, size in parts]
        found: Executable = pickle.loads(self.description, buffers=parts)  # noqa: S301 - our own
        return found


def pack(executable: Executable, same_machine: bool) -> PackedExecutable:
    """Return an executable as it travels.

    Parameters
    ----------
    executable
        The executable.
    same_machine
        Whether all workers are on this machine. They find the weights in memory of this process,
        which exists as long as the result; elsewhere, and where there is no such memory, the
        result has the weights itself.
    """
    buffers: list[pickle.PickleBuffer] = []
    description = pickle.dumps(executable, PROTOCOL, buffer_callback=buffers.append)
    if same_machine and buffers:
        with suppress(OSError, AttributeError):  # no memory, or another operating system
            return _shared(executable.fingerprint, description, buffers)
    return PackedExecutable(executable.fingerprint, description, tuple(buffers))


def _shared(
    fingerprint: str, description: bytes, buffers: Iterable[pickle.PickleBuffer]
) -> PackedExecutable:
    """Return a packed executable with its buffers in memory that other processes can map.

    Raises
    ------
    OSError
        If there is no such memory.
    """
    raw = [buffer.raw() for buffer in buffers]
    places: list[tuple[int, int]] = []
    end = 0
    for part in raw:
        places.append((end, part.nbytes))
        end += -(-part.nbytes // ALIGNMENT) * ALIGNMENT
    descriptor = os.memfd_create("fcdcc-weights", os.MFD_CLOEXEC)
    try:
        os.posix_fallocate(descriptor, 0, max(end, 1))
        with mmap.mmap(descriptor, max(end, 1)) as memory:
            for (first, size), part in zip(places, raw, strict=True):
                memory[first : first + size] = part
    except BaseException:
        os.close(descriptor)
        raise
    shared = SharedBytes(os.getpid(), descriptor, max(end, 1))
    packed = PackedExecutable(fingerprint, description, tuple(places), shared)
    weakref.finalize(packed, os.close, descriptor)
    return packed
