"""Hosts that are network namespaces, and the links between them, which tests make worse.

Making namespaces takes a Linux kernel with TUN devices, and root. What the hosts share is the
file system.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

from support import network_switch

FOR_GOOD = 1e9
"""Seconds for which a link is cut that is not mended."""

WHOLE: dict[str, Any] = {"cut": 0, "flap": None, "loss": 0, "delay": 0, "rate": 0}
"""What a link is like at first."""


class Network:
    """Hosts that reach each other over links of their own.

    Parameters
    ----------
    hosts
        Their names.

    Raises
    ------
    NetworkError
        If no namespaces can be made here.
    """

    def __init__(self, hosts: Sequence[str]) -> None:
        self.hosts = tuple(hosts)
        self._switch = subprocess.Popen(
            [sys.executable, network_switch.__file__, *hosts],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            self._made = self._answer()
        except NetworkError:
            self.close()
            raise

    def __enter__(self) -> Network:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the network; processes that still run on its hosts are alone there."""
        assert self._switch.stdin is not None
        assert self._switch.stdout is not None
        self._switch.stdin.close()
        self._switch.wait(30)
        self._switch.stdout.close()

    def address(self, host: str) -> str:
        """Return the IP address of a host."""
        return str(self._made[host]["address"])

    def namespace(self, host: str) -> str:
        """Return the file by which a process enters a host."""
        return str(self._made[host]["namespace"])

    def set(self, host: str, **changes: Any) -> None:
        """Change the link of a host, in both directions.

        Parameters
        ----------
        host
            Its name.
        **changes
            ``cut``: for so many seconds it carries nothing, from now on; ``flap``: for how many
            seconds it carries packets and for how many it does not, in turn; ``loss``: the part
            of the packets that are lost; ``delay`` in seconds; ``rate`` in bytes a second.
        """
        self._tell({"host": host, **changes})

    def mend(self) -> None:
        """Make all links what they were at first."""
        for host in self.hosts:
            self.set(host, **WHOLE)

    def reseed(self, seed: int) -> None:
        """Determine which packets will be lost."""
        self._tell({"seed": seed})

    def carried_bytes(self) -> dict[str, int]:
        """Return the bytes that every host has received so far, headers of packets included."""
        return self._tell({})

    def _tell(self, command: dict[str, Any]) -> dict[str, Any]:
        assert self._switch.stdin is not None
        self._switch.stdin.write(json.dumps(command) + "\n")
        self._switch.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._switch.stdout is not None
        line = self._switch.stdout.readline()
        answer: dict[str, Any] = json.loads(line) if line else {"error": "the switch has ended"}
        if "error" in answer:
            raise NetworkError(answer["error"])
        return answer


class NetworkError(OSError):
    """No namespaces can be made, or the switch did not understand."""


@cache
def why_impossible() -> str | None:
    """Return why no hosts can be made here; None if they can."""
    if sys.platform != "linux":
        return "network namespaces need Linux"
    try:
        Network(["a"]).close()
    except NetworkError as error:
        return str(error)
    return None


@contextmanager
def on_host(namespace: str) -> Iterator[None]:
    """Move this thread to a host for some time; threads that it starts meanwhile stay there."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        enter(namespace)
        yield
    finally:
        enter(f"/proc/self/fd/{home}")
        os.close(home)


def enter(namespace: str) -> None:
    """Move this thread, and all that it starts from now on, to a host."""
    system = ctypes.CDLL(None, use_errno=True)
    file = os.open(namespace, os.O_RDONLY)
    try:
        if system.setns(file, network_switch.CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), namespace)
    finally:
        os.close(file)
