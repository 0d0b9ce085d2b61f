"""Executables that graphs refer to, in the client: sent to the workers once, and released.

Graphs that a client sends refer to an executable that was sent to its workers beforehand. A graph
that is pickled in any other way, for a file or another process, contains the executable. Which of
the two it is, and for which client, only the calls tell that are going on in the thread, because
Dask pickles the graphs that it sends as anything else is pickled (:func:`_sending_client`).
"""

from __future__ import annotations

import inspect
import logging
import threading
import uuid
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from distributed import Client, LocalCluster
from distributed.protocol.pickle import dumps

from ..worker.executable import Executable, ExecutableRef, GraphExecutable, drop, hold
from ..worker.executable_plugin import (
    KeepExecutable,
    is_in_process,
    raise_setup_error,
    send_packed,
)
from ..worker.graph_executables import INSTALL, RELEASE, USE, arrive, shared_memory

if TYPE_CHECKING:
    from ..model import Model
    from ..worker.packed_executable import PackedExecutable

logger = logging.getLogger(__name__)

SENDING = "_graph_to_futures"
"""Name of the method of a client in which it pickles a graph that it sends."""

LOOPBACK = ("127.0.0.1", "::1", "localhost")
"""Hosts of schedulers whose workers are all on this machine."""


class Installation:
    """An executable on the workers of a client, which may be removed once this is gone."""

    def __init__(self, client: Client, fingerprint: str) -> None:
        self.use = f"{client.id}-{uuid.uuid4().hex}"
        self.fingerprint = fingerprint
        self._connection = client.scheduler_comm
        weakref.finalize(
            self, _release, weakref.ref(client), self._connection, self.use
        ).atexit = False

    def is_on(self, client: Client) -> bool:
        """Return whether the scheduler still knows the client by which the executable was sent."""
        return client.status == "running" and client.scheduler_comm is self._connection

    def reference(self) -> tuple[Callable[..., ExecutableRef], tuple[Any, ...]]:
        """Return what makes a reference in a graph that the client sends."""
        return arrive, (self.fingerprint, self.use)


_lock = threading.Lock()
"""Guards the two tables below."""

_installed: weakref.WeakKeyDictionary[Client, weakref.WeakValueDictionary[str, Installation]] = (
    weakref.WeakKeyDictionary()
)
"""By client and fingerprint."""

_latest: weakref.WeakKeyDictionary[Model, weakref.WeakKeyDictionary[Client, Installation]] = (
    weakref.WeakKeyDictionary()
)
"""By model and client: what stays on the workers for as long as the model is open."""


def graph_executable(
    executable: Executable, model: Model, client: Client | None
) -> GraphExecutable:
    """Return an executable for graphs, and send it to the workers of a client.

    The client's workers keep the executable while the result or a graph with it exists, and the
    last one of each model while the model exists: graphs that are made one after the other in a
    loop use the same. Where the workers cannot be given it, every graph contains it.

    Parameters
    ----------
    executable
        The executable.
    model
        The model that the user has opened.
    client
        Whose scheduler has the plugin of :mod:`..worker.graph_executables`; None for none.
    """
    installation = None
    if client is not None:
        try:
            installation = _installation(executable, client)
        except Exception as error:  # noqa: BLE001 - workers raise what they like
            logger.warning("each graph contains the weights, which workers did not load: %r", error)
    if client is None or installation is None:
        return GraphExecutable(executable, lambda: None)
    with _lock:
        _latest.setdefault(model, weakref.WeakKeyDictionary())[client] = installation

    def reference() -> tuple[Callable[..., ExecutableRef], tuple[Any, ...]] | None:
        sending = _sending_client()
        if sending is None or sending is not known() or not installation.is_on(sending):
            return None
        return installation.reference()

    known = weakref.ref(client)
    return GraphExecutable(executable, reference)


def _sending_client() -> Client | None:
    """Return the client that is sending what this thread pickles; None if none is."""
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_code.co_name == SENDING:
            found = frame.f_locals.get("self")
            return found if isinstance(found, Client) else None
        frame = frame.f_back
    return None


def _installation(executable: Executable, client: Client) -> Installation:
    """Return an executable's installation on the workers of a client; install it if need be.

    Raises
    ------
    Exception
        Whatever keeps workers from loading it.
    """
    fingerprint = executable.fingerprint
    with _lock:
        known = _installed.setdefault(client, weakref.WeakValueDictionary())
        found = known.get(fingerprint)
    if found is not None and found.is_on(client):
        return found
    made = Installation(client, fingerprint)
    if not _ask(client, USE, client=client.id, use=made.use, fingerprint=fingerprint):
        _send(executable, client, made)
    with _lock:
        known[fingerprint] = made
    return made


def _send(executable: Executable, client: Client, installation: Installation) -> None:
    """Have an executable loaded by all workers of a client that are heard of.

    Raises
    ------
    Exception
        Whatever keeps one of them from loading it.
    """
    if is_in_process(client):
        ref = hold(executable)
        try:
            _install(client, installation, ref)
        finally:
            drop(ref)
        return

    def send(packed: PackedExecutable) -> None:
        _install(client, installation, packed)

    send_packed(executable, _is_on_this_machine(client), send)


def _install(
    client: Client, installation: Installation, executable: ExecutableRef | PackedExecutable
) -> None:
    """Send an executable, as it travels, to all workers.

    Raises
    ------
    Exception
        Whatever keeps one of them from loading it.
    """
    name = f"fcdcc-graph-executable-{uuid.uuid4().hex}"
    if not isinstance(executable, ExecutableRef) and executable.shared is not None:
        shared_memory[name] = executable
    used, responses = None, {}
    try:
        answer = _ask(
            client,
            INSTALL,
            client=client.id,
            use=installation.use,
            fingerprint=installation.fingerprint,
            name=name,
            plugin=dumps(KeepExecutable(executable, name)),
            held_here=isinstance(executable, ExecutableRef),
        )
        used, responses = answer["plugin"], answer["responses"]
    finally:
        if used != name:  # another client was faster
            shared_memory.pop(name, None)
    raise_setup_error(responses)


def _is_on_this_machine(client: Client) -> bool:
    """Return whether this process started the client's cluster, for this machine only."""
    scheduler = client.scheduler
    if scheduler is None or not isinstance(client.cluster, LocalCluster):
        return False
    return urlsplit(str(scheduler.address)).hostname in LOOPBACK


def _ask(client: Client, operation: str, /, **arguments: Any) -> Any:
    """Call a handler of the client's scheduler, and return what it answers."""

    async def request() -> Any:
        return await getattr(client.scheduler, operation)(**arguments)

    return client.sync(request)


def _release(known: weakref.ref[Client], connection: Any, use: str) -> None:
    """Tell a scheduler that a client sends no more graphs, after all that it has sent.

    A graph that is being sent refers to the installation, so that its message is on the way, or
    comes first in the client's event loop, when this is called.
    """
    client = known()
    loop = None if client is None else client.loop
    if client is None or loop is None:
        return

    def tell() -> None:
        # Otherwise the scheduler knows that the client has gone, or is another one.
        is_connected = client.status == "running" and client.scheduler_comm is connection
        if is_connected:
            with suppress(OSError):  # the connection is closed
                connection.send({"op": RELEASE, "use": use})

    with suppress(RuntimeError):  # the loop is closed
        loop.add_callback(tell)
