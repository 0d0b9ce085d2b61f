"""Makes hosts, each a network namespace of its own, and carries packets between them.

A program of its own, started by :class:`support.network.Network`, that needs nothing but Python.
Each host has one interface, a TUN device whose other end is a file of this process. The link
from a host to the switch can be cut, lose packets, delay them, and limit their rate.

Commands are lines of JSON on standard input, each answered by one line::

    {"host": "a", "cut": 5.0}      cuts the link of host a for 5 seconds
    {"seed": 7}                    determines which packets will be lost
    {}                             changes nothing

The answer says how many bytes each host has been handed so far.

Namespaces end with this process, as soon as nothing runs in them any more.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import random
import select
import socket
import struct
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from time import monotonic

MTU_BYTES = 9000
QUEUE_BYTES = 256 * 1024
"""What waits for a link of limited rate; what comes on top of it is lost."""

CLONE_NEWNET = 0x40000000
TUNSETIFF, IFF_TUN_WITHOUT_HEADER = 0x400454CA, 0x1001
SIOCSIFFLAGS, SIOCSIFADDR, SIOCSIFNETMASK, SIOCSIFMTU = 0x8914, 0x8916, 0x891C, 0x8922
IFF_UP = 1

UP, DOWN = 0, 1
"""From a host to the switch, and from the switch to a host."""


@dataclass
class Link:
    """The link of a host, and what it does to packets, the same in both directions."""

    tunnel: int
    """The file whose packets are those of the host's interface."""
    namespace: int
    """The file by which other processes enter the host."""
    cut_until: float = 0.0
    flap: tuple[float, float] | None = None
    """Seconds for which it carries packets, and for which it does not, in turn."""
    flap_since: float = 0.0
    loss: float = 0.0
    """The part of the packets that are lost, 0 to 1."""
    delay: float = 0.0
    """Seconds."""
    rate: float = 0.0
    """Bytes in a second; 0: no limit."""
    free: list[float] = field(default_factory=lambda: [0.0, 0.0])
    """When the packets before have left it, in each direction."""
    carried_bytes: int = 0
    """What the host has been handed."""

    def is_cut(self, now: float) -> bool:
        """Return whether it carries nothing at the moment."""
        if self.flap is not None:
            whole, broken = self.flap
            if (now - self.flap_since) % (whole + broken) >= whole:
                return True
        return now < self.cut_until

    def change(self, now: float, change: dict[str, object]) -> None:
        """Set what is in a command."""
        for name, value in change.items():
            if name == "cut":
                self.cut_until = now + float(value)  # type: ignore[arg-type]
            elif name == "flap":
                self.flap, self.flap_since = value and tuple(value), now  # type: ignore[assignment, arg-type]
            elif name in ("loss", "delay", "rate"):
                setattr(self, name, float(value))  # type: ignore[arg-type]
            else:
                raise ValueError(f"no link has {name!r}")


class Switch:
    """Carries packets between hosts.

    Parameters
    ----------
    names
        Of the hosts; the first one has the address 10.77.0.1.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names
        self.draw = random.Random(0)
        self.links = make_hosts([address(number) for number in range(len(names))])
        self.late: list[tuple[float, int, bytes, int, int]] = []
        """A heap: when a packet arrives, its number, itself, at which host, in which direction."""
        self.count = 0

    def run(self) -> None:
        """Carry packets and obey commands until standard input is closed."""
        events = select.epoll()
        hosts = {link.tunnel: number for number, link in enumerate(self.links)}
        for descriptor in (*hosts, 0):
            events.register(descriptor, select.EPOLLIN)
        commands = b""
        while True:
            wait = max(0.0, self.late[0][0] - monotonic()) if self.late else -1
            for descriptor, _ in events.poll(wait):
                if descriptor in hosts:
                    self.receive(hosts[descriptor])
                    continue
                read = os.read(0, 1 << 16)
                if not read:
                    return
                *lines, commands = (commands + read).split(b"\n")
                for line in lines:
                    say(self.obey(json.loads(line)))
            now = monotonic()
            while self.late and self.late[0][0] <= now:
                _, _, packet, host, direction = heappop(self.late)
                self.arrive(packet, host, direction, now)

    def obey(self, command: dict[str, object]) -> dict[str, object]:
        """Change a link; return the bytes that each host has been handed so far."""
        host = command.pop("host", None)
        if "seed" in command:
            self.draw.seed(int(str(command.pop("seed"))))
        try:
            if host is not None:
                self.links[self.names.index(str(host))].change(monotonic(), command)
        except (TypeError, ValueError) as error:
            return {"error": str(error)}
        return {name: link.carried_bytes for name, link in zip(self.names, self.links, strict=True)}

    def receive(self, host: int) -> None:
        """Take the packets that a host has sent."""
        for _ in range(64):  # then it is the turn of others
            try:
                packet = os.read(self.links[host].tunnel, 1 << 16)
            except BlockingIOError:
                return
            if packet[0] >> 4 == 4:  # other than version 4 of IP there are only announcements
                self.enter(packet, host, UP, monotonic())

    def enter(self, packet: bytes, host: int, direction: int, now: float) -> None:
        """Put a packet on a host's link, unless it is lost there."""
        link = self.links[host]
        if link.is_cut(now) or (link.loss and self.draw.random() < link.loss):
            return
        arrives = now
        if link.rate:
            begins = max(now, link.free[direction])
            if (begins - now) * link.rate > QUEUE_BYTES:
                return
            link.free[direction] = arrives = begins + len(packet) / link.rate
        arrives += link.delay
        if arrives > now:
            self.count += 1
            heappush(self.late, (arrives, self.count, packet, host, direction))
        else:
            self.arrive(packet, host, direction, now)

    def arrive(self, packet: bytes, host: int, direction: int, now: float) -> None:
        """Take a packet from the end of a host's link."""
        if self.links[host].is_cut(now):
            return
        if direction == DOWN:
            self.links[host].carried_bytes += len(packet)
            try:
                os.write(self.links[host].tunnel, packet)
            except OSError:  # its interface is full or down
                return
        elif 0 < packet[19] <= len(self.links):  # the end of the address that it goes to
            self.enter(packet, packet[19] - 1, DOWN, now)


def address(number: int) -> str:
    """Return the address of a host."""
    return f"10.77.0.{number + 1}"


def make_hosts(addresses: list[str]) -> list[Link]:
    """Make a namespace with an interface for each address.

    Raises
    ------
    OSError
        If this process may not do that.
    """
    system = ctypes.CDLL(None, use_errno=True)

    def check(failed: int) -> None:
        if failed:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), "namespace")

    home = os.open("/proc/self/ns/net", os.O_RDONLY)
    links = []
    for own in addresses:
        check(system.unshare(CLONE_NEWNET))
        tunnel = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(tunnel, TUNSETIFF, struct.pack("16sH22x", b"net0", IFF_TUN_WITHOUT_HEADER))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            set_up(control, own)
        links.append(Link(tunnel, os.open("/proc/self/ns/net", os.O_RDONLY)))
    check(system.setns(home, CLONE_NEWNET))
    return links


def set_up(control: socket.socket, own: str) -> None:
    """Give the interface of this namespace its address, and start it and the loopback."""

    def request(code: int, interface: bytes, layout: str, *values: int | bytes) -> None:
        fcntl.ioctl(control, code, struct.pack(f"16s{layout}", interface, *values).ljust(40, b"\0"))

    def internet(text: str) -> tuple[int, int, bytes]:
        return socket.AF_INET, 0, socket.inet_aton(text)

    request(SIOCSIFADDR, b"net0", "HH4s", *internet(own))
    request(SIOCSIFNETMASK, b"net0", "HH4s", *internet("255.255.255.0"))
    request(SIOCSIFMTU, b"net0", "i", MTU_BYTES)
    for interface in (b"lo", b"net0"):
        request(SIOCSIFFLAGS, interface, "h", IFF_UP)


def say(answer: Mapping[str, object]) -> None:
    """Write a line to standard output."""
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def main(*names: str) -> None:
    """Make the hosts, say where they are, and carry packets between them."""
    try:
        switch = Switch(names)
    except OSError as error:
        say({"error": f"no network namespaces can be made: {error}"})
        return
    say(
        {
            name: {
                "address": address(number),
                "namespace": f"/proc/{os.getpid()}/fd/{link.namespace}",
            }
            for number, (name, link) in enumerate(zip(names, switch.links, strict=True))
        }
    )
    switch.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
