"""The client for programs without asyncio: a thread of its own reads the sockets, so that pings are answered whatever the program does."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from functools import partial
from types import TracebackType
from typing import Any, Literal, TypeVar, Unpack

from ._client import Base, Settings, names_of, options_of, wanted
from ._engine import Options, fetch_snapshot
from ._events import Event, Mark, Receipt, StentorError
from ._inbox import Inbox, Item
from ._json import dumps

T = TypeVar("T")

#: Seconds that the last publications may take when a client is closed.
GOODBYE = 1.0


def connect(url: str | Sequence[str], **settings: Unpack[Settings]) -> Client:
    """Connects to a server, and stays connected until it is closed.

    `url`: an address such as `wss://md.example/ws`, or several of servers that have the same feed: after a loss the next one is tried.

    Beside it, each with its default:

    - `token=None`: shown at each connecting: a word, or a function (also an `async` one) that is asked for one each time, and before the old one expires.
    - `timeout=10.0`: seconds that the first connection may take, `None` for as long as it needs. Later ones are tried for ever.
    - `when_slow="wait"`, `buffer_bytes=64 * 2**20`: what happens when the program leaves so many bytes of events lying. `"wait"`: the server is read no
      further, and does what the mode of the subscription says. `"latest"`: of each topic only the newest value stays, behind a `Gap`. `"error"`: iterating
      raises `too_slow`.
    - `parse_float=None`: what becomes of numbers with a point, such as `decimal.Decimal`.
    - `tls=None`: another context than the system's, for `wss://`. `compression=True`: whether it is offered to the server.
    - `topics_max=100_000`: topics whose place is remembered; further ones come just the same, but are neither checked for gaps nor resumed one by one.
    - `publishes_max=1000`: publications that may wait for their answer. `message_max=16 * 2**20`: bytes of one message of the server.
    - `backoff=(0.5, 15.0)`: first and last bound, in seconds, of the random delay before coming back. `patience=10.0`: seconds that one try may take.

    Raises `StentorError`: `unreachable` if there is no connection in time, `refused` or `unauthorized` if the server doesn't want us.
    """
    client = Client(options_of(url, settings))
    try:
        client._wait_open()
    except BaseException:
        client.close()
        raise
    return client


class Client(Base):
    """Connections to a server, one after the other; made by `connect`. Any thread may use it, one at a time iterate."""

    def __init__(self, options: Options) -> None:
        self._ready = threading.Condition()
        self._settled = threading.Event()
        self._room = threading.Semaphore(options.publishes_max)
        self._taken: list[Item] = []
        self._sending = threading.Lock()
        self._publications: list[tuple[str, bytes, Future[Receipt]]] = []
        # The thread does no more; under the same lock as what it is given to do.
        self._is_over = False
        self._loop = asyncio.new_event_loop()
        self._stopping = asyncio.Event()
        super().__init__(options, Inbox(options.buffer_bytes, options.when_slow, self._notify, self._has_room))
        self._thread = threading.Thread(target=self._run, name="stentor", daemon=True)
        self._thread.start()

    # ---- Events ------------------------------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Event]:
        return self

    def __next__(self) -> Event:
        """The next event; waits for it. Raises `StentorError` for what the server refused, and can go on after it; ends when the client is closed."""
        event = self._next(None)
        if event is None:
            raise StopIteration
        return event

    def receive(self, timeout: float | None = None) -> Event:
        """The next event, within so many seconds, or `TimeoutError`. `StentorError` with `closed` when there will be none."""
        event = self._next(None if timeout is None else time.monotonic() + timeout)
        if event is None:
            raise _closed()
        return event

    def pending(self) -> list[Event]:
        """What has come until now, without waiting: for notebooks, and loops of one's own."""
        events: list[Event] = []
        try:
            while (event := self._next(0.0)) is not None:
                events.append(event)
        except TimeoutError:
            pass
        except StentorError as error:
            if not events:
                raise
            self._taken.append(error)
        return events

    def _next(self, until: float | None) -> Event | None:
        while True:
            if not self._taken and not self._take(until):
                return None
            event = self._taken.pop()
            if isinstance(event, Mark):
                self._cursor = event.cursor
            elif isinstance(event, StentorError):
                raise event
            else:
                return event

    def _take(self, until: float | None) -> bool:
        """Waits until there is something; whether there will be."""
        while (taken := self._inbox.take()) is not None:
            if taken:
                taken.reverse()
                self._taken = taken
                return True
            with self._ready:
                if self._inbox.is_empty and not self._ready.wait(None if until is None else max(0.0, until - time.monotonic())):
                    raise TimeoutError("no event in this time")
        return False

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
        self._post(self._engine.subscribe, wanted(names, mode, rate), mode, rate, snapshot, start)

    def unsubscribe(self, names: str | Iterable[str]) -> None:
        """Ends subscriptions, named as they were made. What had come before is still told."""
        self._check()
        self._post(self._engine.unsubscribe, names_of(names))

    def publish(self, topic: str, data: Any = None, *, raw: bytes | str | None = None, timeout: float | None = None) -> Future[Receipt]:
        """Publishes a value as JSON, or JSON text as it is (`raw`), so that `1.50` stays `1.50`.

        Waits for a connection, and while `publishes_max` publications wait for their answer; at most `timeout` seconds, then `TimeoutError`. The future's
        result is the server's answer, or a `StentorError`: after `disconnected` nobody knows whether the server took it. Nothing is repeated by itself.
        """
        text = dumps(data) if raw is None else raw.encode() if isinstance(raw, str) else raw
        until = None if timeout is None else time.monotonic() + timeout
        if not self._room.acquire(timeout=timeout):
            raise TimeoutError(f"{self._options.publishes_max} publications wait for their answer")
        future: Future[Receipt] = Future()
        future.add_done_callback(lambda _: self._room.release())
        try:
            if not self._settled.wait(None if until is None else max(0.0, until - time.monotonic())):
                raise TimeoutError("there is no connection")
            self._check()
            with self._sending:
                if self._is_over:
                    raise _closed()
                self._publications.append((topic, text, future))
                if len(self._publications) == 1:
                    self._post(lambda: self._loop.create_task(self._send()))
        except BaseException:
            future.cancel()
            raise
        return future

    def snapshot(self, names: str | Iterable[str], *, timeout: float | None = 30.0) -> dict[str, Any]:
        """The last value of every topic that the names stand for, at this moment; over a connection of its own, whatever is subscribed to."""
        self._check()
        return self._call(fetch_snapshot(self._options, names_of(names)), timeout)

    def ping(self, *, timeout: float | None = 10.0) -> float:
        """Seconds to the server and back, behind everything that is on its way."""
        return self._call(self._engine.ping(), timeout)

    # ---- The connection ----------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Says goodbye, and stays away. What was published before is sent."""
        try:
            self._loop.call_soon_threadsafe(self._stopping.set)
        except RuntimeError:
            return  # It is closed.
        if self._thread is not threading.current_thread():
            self._thread.join()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _wait_open(self) -> None:
        if not self._settled.wait(self._options.timeout):
            raise StentorError("unreachable", self._engine.trouble or "no connection in this time")
        self._check()

    # ---- The thread that reads ---------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._live())
        except BaseException as error:  # A fault of ours: who iterates must not wait for ever.
            self._inbox.end(StentorError("internal", repr(error)))
            raise
        finally:
            with self._sending:
                self._is_over = True
            self._loop.run_until_complete(self._end_all())
            self._loop.close()

    async def _live(self) -> None:
        self._engine.start()
        await self._stopping.wait()
        try:
            async with asyncio.timeout(GOODBYE):
                await self._send()
        except TimeoutError:
            pass  # The server takes nothing: what waits is told so.
        await self._engine.close()
        await self._send()

    async def _end_all(self) -> None:
        """Whoever waits in another thread, for a snapshot or an answer, is told that nothing comes."""
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await asyncio.sleep(0)  # Their outcomes are handed on.
        for _, _, future in self._publications:
            _settle(future, None, _closed())

    async def _send(self) -> None:
        """Publishes what has gathered, as soon as the network takes it; without a connection its futures are told."""
        await self._engine.writable()
        with self._sending:
            publications, self._publications = self._publications, []
        for topic, text, future in publications:
            self._engine.core.publish(topic, text, partial(_settle, future))

    def _has_changed(self) -> None:
        if self._engine.is_open or self._engine.end is not None:
            self._settled.set()
        else:
            self._settled.clear()

    def _notify(self) -> None:
        with self._ready:
            self._ready.notify()

    def _has_room(self) -> None:
        self._post(self._engine.resume_reading)

    def _post(self, act: Callable[..., Any], *args: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(act, *args)
        except RuntimeError:
            pass  # It was closed meanwhile; what waits was told.

    def _call(self, work: Coroutine[Any, Any, T], timeout: float | None) -> T:
        with self._sending:
            if self._is_over:
                work.close()
                raise _closed()
            future = asyncio.run_coroutine_threadsafe(asyncio.wait_for(work, timeout), self._loop)
        try:
            return future.result()
        except CancelledError:
            raise _closed() from None


def _closed() -> StentorError:
    return StentorError("closed", "this client was closed")


def _settle(future: Future[Receipt], receipt: Receipt | None, error: StentorError | None) -> None:
    if not future.set_running_or_notify_cancel():
        return
    if receipt is not None:
        future.set_result(receipt)
    else:
        future.set_exception(error or StentorError("disconnected", "there is no answer"))
