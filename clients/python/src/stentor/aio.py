"""The client for asyncio, with the same names.

    from stentor.aio import Gap, Reset, Update, connect

    async with connect("ws://127.0.0.1:9001/ws") as md:
        md.subscribe("q.demo.*")
        async for event in md:
            match event:
                case Update(topic, seq, data):
                    print(topic, seq, data)
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Generator, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, Unpack

from ._client import Base, Settings, names_of, options_of, wanted
from ._engine import Options, fetch_snapshot
from ._events import Event, Gap, Mark, Receipt, Reset, StentorError, Status, Subscribed, Update
from ._inbox import Inbox, Item
from ._json import dumps

__all__ = [
    "Client",
    "Event",
    "Gap",
    "Receipt",
    "Reset",
    "Settings",
    "StentorError",
    "Status",
    "Subscribed",
    "Update",
    "connect",
]


def connect(url: str | Sequence[str], **settings: Unpack[Settings]) -> _Connecting:
    """`stentor.connect` for asyncio: `async with connect(…) as md`, or `md = await connect(…)` and `await md.close()`."""
    return _Connecting(options_of(url, settings))


class Client(Base):
    """Connections to a server, one after the other; made by `connect`. Belongs to the loop that it was made in; one task at a time iterates."""

    def __init__(self, options: Options) -> None:
        self._ready = asyncio.Event()
        self._settled = asyncio.Event()
        self._room = asyncio.Semaphore(options.publishes_max)
        self._taken: list[Item] = []
        super().__init__(options, Inbox(options.buffer_bytes, options.when_slow, self._ready.set, self._has_room))
        self._engine.start()

    # ---- Events ------------------------------------------------------------------------------------------------------------------

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        """The next event; waits for it. Raises `StentorError` for what the server refused, and can go on after it; ends when the client is closed."""
        event = await self._next()
        if event is None:
            raise StopAsyncIteration
        return event

    async def receive(self, timeout: float | None = None) -> Event:
        """The next event, within so many seconds, or `TimeoutError`. `StentorError` with `closed` when there will be none."""
        if not self._taken:
            self._refill()  # What is there is there, however short the time.
        async with asyncio.timeout(timeout):
            event = await self._next()
        if event is None:
            raise StentorError("closed", "this client was closed")
        return event

    def pending(self) -> list[Event]:
        """What has come until now, without waiting."""
        events: list[Event] = []
        while self._taken or self._refill():
            if isinstance(self._taken[-1], StentorError) and events:
                break
            event = self._first()
            if event is not None:
                events.append(event)
        return events

    async def _next(self) -> Event | None:
        while self._taken or await self._take():
            event = self._first()
            if event is not None:
                return event
        return None

    def _first(self) -> Event | None:
        event = self._taken.pop()
        if isinstance(event, StentorError):
            raise event
        if isinstance(event, Mark):
            self._cursor = event.cursor
            return None
        return event

    def _refill(self) -> bool:
        self._taken = (self._inbox.take() or [])[::-1]
        return bool(self._taken)

    async def _take(self) -> bool:
        """Waits until there is something; whether there will be."""
        # Others have their turn between two batches, however much there is.
        await asyncio.sleep(0)
        while not self._refill():
            if self._inbox.is_ended:
                return False
            self._ready.clear()
            await self._ready.wait()
        return True

    # ---- Subscribing, publishing -------------------------------------------------------------------------------------------------

    def subscribe(
        self,
        names: str | Iterable[str],
        *,
        mode: Literal["all", "latest"] = "all",
        rate: float | None = None,
        snapshot: bool = True,
        start: str | Mapping[str, tuple[str, int]] | None = None,
    ) -> None:
        """Subscribes to topics and patterns, now or as soon as there is a connection, and again after every loss. A name that one has gets a new mode or rate.

        `mode`: `"all"`, every publication, or `"latest"`, the newest value of each topic when one is slow; with `rate` at most so many a second of each.
        `snapshot`: whether to begin with the last values. `start`: where to begin instead: what `cursor` was, or of topics the `epoch` and `seq` of
        an update.
        What the server refuses is raised by iterating.
        """
        self._check()
        self._engine.subscribe(wanted(names, mode, rate), mode, rate, snapshot, start)

    def unsubscribe(self, names: str | Iterable[str]) -> None:
        """Ends subscriptions, named as they were made. What had come before is still told."""
        self._check()
        self._engine.unsubscribe(names_of(names))

    async def publish(
        self, topic: str, data: Any = None, *, raw: bytes | str | None = None, timeout: float | None = None
    ) -> asyncio.Future[Receipt]:
        """Publishes a value as JSON, or JSON text as it is (`raw`), so that `1.50` stays `1.50`.

        Waits for a connection, while `publishes_max` publications wait for their answer, and until the network takes more; at most `timeout` seconds,
        then `TimeoutError`. What it returns is a future whose result is the server's answer, or a `StentorError`: after `disconnected` nobody knows
        whether the server took it. Nothing is repeated by itself.
        """
        text = dumps(data) if raw is None else raw.encode() if isinstance(raw, str) else raw
        async with asyncio.timeout(timeout):
            await self._room.acquire()
            try:
                await self._settled.wait()
                await self._engine.writable()
            except BaseException:
                self._room.release()
                raise
            if self._engine.end is not None:
                self._room.release()
                raise self._engine.end
        future: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        future.add_done_callback(_seen)

        def answered(receipt: Receipt | None, error: StentorError | None) -> None:
            self._room.release()
            if future.done():
                return
            if receipt is not None:
                future.set_result(receipt)
            else:
                future.set_exception(error or StentorError("disconnected", "there is no answer"))

        self._engine.core.publish(topic, text, answered)
        return future

    async def snapshot(self, names: str | Iterable[str], *, timeout: float | None = 30.0) -> dict[str, Any]:
        """The last value of every topic that the names stand for, at this moment; over a connection of its own, whatever is subscribed to."""
        self._check()
        async with asyncio.timeout(timeout):
            return await fetch_snapshot(self._options, names_of(names))

    async def ping(self, *, timeout: float | None = 10.0) -> float:
        """Seconds to the server and back, behind everything that is on its way."""
        async with asyncio.timeout(timeout):
            return await self._engine.ping()

    # ---- The connection ----------------------------------------------------------------------------------------------------------

    async def close(self) -> None:
        """Says goodbye, and stays away. What was published before is sent."""
        await self._engine.close()

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    async def _wait_open(self) -> None:
        try:
            async with asyncio.timeout(self._options.timeout):
                await self._settled.wait()
        except TimeoutError:
            raise StentorError("unreachable", self._engine.trouble or "no connection in this time") from None
        self._check()

    def _has_changed(self) -> None:
        if self._engine.is_open or self._engine.end is not None:
            self._settled.set()
        else:
            self._settled.clear()

    def _has_room(self) -> None:
        self._engine.resume_reading()


class _Connecting:
    """A client that is being made: to be awaited, or entered."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._client: Client | None = None

    def __await__(self) -> Generator[Any, None, Client]:
        return self._connect().__await__()

    async def __aenter__(self) -> Client:
        self._client = await self._connect()
        return self._client

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self._client is not None
        await self._client.close()

    async def _connect(self) -> Client:
        client = Client(self._options)
        try:
            await client._wait_open()
        except BaseException:
            await client.close()
            raise
        return client


def _seen(future: asyncio.Future[Receipt]) -> None:
    """Who doesn't look at an answer isn't told by the loop that it was an error: many don't."""
    if not future.cancelled():
        future.exception()
