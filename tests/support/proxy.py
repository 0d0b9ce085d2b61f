"""A TCP proxy that delays, holds back or cuts what goes through it, as a bad network does."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any


class Proxy:
    """Forwards connections to an address, from a port of its own, in a thread of its own.

    A lost packet is one that comes later, when it has been sent again: TCP hides the rest.

    Parameters
    ----------
    target
        Port on this machine that is connected to.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.delay = 0.0
        """Seconds by which everything is late."""
        self.loss = 0.0
        """Part of the pieces that are late by another ``resend`` seconds."""
        self.resend = 0.2
        self.cut = False
        """Whether nothing comes through; connections stay open, as with a pulled cable."""
        self.bytes = 0
        self._draw = random.Random(5)
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._server = self._call(self._listen())
        self.port: int = self._server.sockets[0].getsockname()[1]

    def close(self) -> None:
        """End all connections."""
        self._call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _call(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _listen(self) -> asyncio.Server:
        return await asyncio.start_server(self._accept, "127.0.0.1", 0)

    async def _end(self) -> None:
        self._server.close()
        for task in [*self._tasks]:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.sleep(0.05)  # for the transports to be done with

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            other, onward = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.close()
            return
        self._writers += [writer, onward]
        for source, sink in ((reader, onward), (other, writer)):
            task = asyncio.create_task(self._forward(source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _forward(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, OSError):
            while data := await source.read(1 << 16):
                late = self.delay + self.resend * (self._draw.random() < self.loss)
                if late:
                    await asyncio.sleep(late)
                while self.cut:
                    await asyncio.sleep(0.02)
                self.bytes += len(data)
                sink.write(data)
                await sink.drain()
        with suppress(ConnectionError, OSError, RuntimeError):
            sink.close()
