"""Stays connected: connects, comes back after every loss, and takes what came from the socket to the inbox. Runs on an asyncio loop.

The delay before coming back is random between nothing and a bound that doubles (full jitter), or within the window that the server named.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import random
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ._core import Core
from ._events import StentorError, Status, Update
from ._inbox import Inbox, Item, WhenSlow
from ._json import loads_of
from ._topics import Broken
from ._wire import Refused, Wire, address, open_wire

log = logging.getLogger("stentor")

#: What shows who one is: a word, or what is called for one before each connecting, and when the server says that the old one is about to expire.
Token = str | Callable[[], str] | Callable[[], Awaitable[str]]

#: A connection of so many seconds was a good one: the next loss begins with short delays again.
GOOD_AFTER = 10.0

#: Wrong tokens in a row, from a function that is asked for each, after which it is given up.
WRONG_TOKENS = 3

#: Answers to the handshake that another try won't change.
HOPELESS = (400, 401, 403, 404, 405, 426)

#: Seconds that a server may send one away for.
AWAY_MAX = 600.0

#: Seconds of much traffic after which the server is asked how far one has come, once it has shown that it gives cursors.
CURSOR_EVERY = 3.0


@dataclass(frozen=True)
class Options:
    """What `connect` was told; it is described there."""

    urls: Sequence[str]
    token: Token | None = None
    timeout: float | None = 10.0
    when_slow: WhenSlow = "wait"
    buffer_bytes: int = 64 * 2**20
    parse_float: Callable[[str], Any] | None = None
    tls: ssl.SSLContext | None = None
    compression: bool = True
    topics_max: int = 100_000
    publishes_max: int = 1000
    message_max: int = 16 * 2**20
    backoff: tuple[float, float] = (0.5, 15.0)
    patience: float = 10.0

    def __post_init__(self) -> None:
        for url in self.urls:
            address(url)
        if not self.urls:
            raise StentorError("bad_address", "expected at least one address, found none")
        if self.when_slow not in ("wait", "latest", "error"):
            raise ValueError(f"when_slow: expected 'wait', 'latest' or 'error', found {self.when_slow!r}")


class Engine:
    """One client's connections, one after the other."""

    def __init__(self, options: Options, inbox: Inbox, changed: Callable[[], None]) -> None:
        """`changed` is called when `is_open` or `end` has changed."""
        self.options = options
        self.inbox = inbox
        self._changed = changed
        self._batch: list[Item] = []
        self._wire: Wire | None = None
        self.core = Core(emit=self._batch.append, send=self._send, loads=loads_of(options.parse_float), topics_max=options.topics_max)
        inbox.keyed = self.core.topics.keyed
        self._task: asyncio.Task[None] | None = None
        self._failures = 0
        self._wrong_tokens = 0
        self._was_open = False
        self._cursor_at = 0.0
        self._authenticating: asyncio.Task[None] | None = None
        #: The token that the server was shown last.
        self._shown: str | None = None
        #: There is a connection, and the server has greeted.
        self.is_open = False
        #: Why there will be no connection any more.
        self.end: StentorError | None = None
        #: What was wrong the last time.
        self.trouble = ""

    # ---- What its owner does, on the loop ----------------------------------------------------------------------------------------

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        if self.end is None:
            self.end = StentorError("closed", "this client was closed")
            self.is_open = False
            self.inbox.end()
            self._changed()
        if self._wire is not None:
            await self._wire.close(1.0)
        for task in (self._task, self._authenticating):
            if task is not None and task is not asyncio.current_task():
                task.cancel()
                await asyncio.wait([task])
        if self.core.hello is not None:
            self.core.lost()

    def subscribe(self, names: Sequence[str], mode: str, rate: float | None, snapshot: bool, start: str | Mapping[str, tuple[str, int]] | None) -> None:
        self._guarded(lambda: self.core.subscribe(names, mode, rate, snapshot, start))

    def unsubscribe(self, names: Sequence[str]) -> None:
        self._guarded(lambda: self.core.unsubscribe(names))

    def resume_reading(self) -> None:
        """There is room in the inbox again."""
        if self._wire is not None:
            self._wire.resume()

    async def writable(self) -> None:
        if self._wire is not None:
            await self._wire.writable()

    async def token(self) -> str | None:
        return await ask_token(self.options.token)

    async def ping(self) -> float:
        """Seconds to the server and back."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()

        def answered(answer: dict[str, Any] | None, error: StentorError | None) -> None:
            if not done.done():
                done.set_result(None) if error is None else done.set_exception(error)

        began = loop.time()
        self.core.ask({"op": "ping"}, answered)
        await done
        return loop.time() - began

    # ---- Connections -------------------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        try:
            nth = 0
            while self.end is None:
                delay = await self._connection(self.options.urls[nth % len(self.options.urls)])
                nth += 1
                if self.end is None:
                    log.info("%s; back in %.2f s", self.trouble, delay)
                    await asyncio.sleep(delay)
        except Exception as error:  # A fault of ours: who iterates must not wait for ever.
            log.exception("the client has failed")
            self._finish(StentorError("internal", repr(error)))

    async def _connection(self, url: str) -> float:
        """One connection, to its end; how long to stay away then."""
        options = self.options
        try:
            async with asyncio.timeout(options.patience):
                token = self._shown = await self.token()
                wire = await open_wire(
                    url,
                    token=token,
                    tls=options.tls,
                    compression=options.compression,
                    message_max=options.message_max,
                    made=self._made,
                    read=self.core.read,
                    batch=self._deliver,
                )
        except Refused as refused:
            self._wire = None
            self.trouble = f"{url}: {refused}"
            if not self._was_open and refused.status in HOPELESS:
                self._finish(StentorError("refused", self.trouble))
            return _bounded(refused.retry_after) + self._delay(0)
        except Exception as error:  # A token's function may raise anything; a network nearly so.
            self._wire = None
            self.trouble = f"{url}: {'no answer' if isinstance(error, TimeoutError) else error}"
            return self._delay(0)
        return await self._opened(url, wire)

    async def _opened(self, url: str, wire: Wire) -> float:
        loop = asyncio.get_running_loop()
        began = loop.time()
        if self.inbox.is_full:
            wire.pause()
        watch = loop.create_task(self._watch(wire))
        try:
            code, why = await asyncio.shield(wire.closed)
        finally:
            watch.cancel()
        was_open, window = self.is_open, self.core.window
        self.trouble = f"{url}: {why or self.core.farewell or 'the connection ended'} ({code})"
        self._wire = None
        self.is_open = False
        self.core.lost()
        if was_open:
            self._batch.append(Status("lost", message=self.trouble))
        self._deliver()
        self._changed()
        if was_open and loop.time() - began > GOOD_AFTER:
            self._failures = self._wrong_tokens = 0  # It was a right one, and has expired.
        if code == 4001:
            self._unauthorized(why)
        elif code == 4002:  # Who came back would replace the connection that has replaced this one.
            self._finish(StentorError("replaced", why or self.core.farewell or "the same holder has connected again"))
        elif was_open:
            self._wrong_tokens = 0
        if wire.broken is not None and not isinstance(wire.broken, Broken):
            log.error("a message could not be read", exc_info=wire.broken)
        delay = self._delay(code)
        if window is not None:
            delay = random.uniform(_bounded(window[0] / 1000), _bounded(window[1] / 1000))
            self.core.window = None
        return delay

    def _unauthorized(self, why: str) -> None:
        self._wrong_tokens += 1
        if not callable(self.options.token) or self._wrong_tokens >= WRONG_TOKENS:
            self._finish(StentorError("unauthorized", why or self.core.farewell or "the token is wrong"))

    def _delay(self, code: int) -> float:
        """How long to stay away: random, so that many clients don't come back at one moment."""
        least, most = self.options.backoff
        failures, self._failures = self._failures, min(self._failures + 1, 32)
        # We were told that we ask too much, or that there is no room: nothing is gained by asking soon.
        if code in (1013, 4003):
            return random.uniform(most / 2, most)
        return random.uniform(0, min(most, least * 2**failures))

    async def _watch(self, wire: Wire) -> None:
        """A server says something, if only a heartbeat, or it is gone."""
        loop = asyncio.get_running_loop()
        patience = self.options.patience
        while True:
            hello = self.core.hello
            silence = float(hello.get("heartbeat", 0)) * 2 if hello is not None else patience
            await asyncio.sleep(min(silence / 8, 1.0) if silence else 1.0)
            if hello is not None and not silence:
                continue
            if not self.inbox.is_full and loop.time() - wire.heard_at > silence:
                wire.abort(f"nothing was heard for {silence:g} s" if hello else "the server did not greet")
                return

    def _made(self, wire: Wire) -> None:
        self._wire = wire

    def _send(self, text: bytes) -> None:
        if self._wire is not None:
            self._wire.send(text)

    def _guarded(self, act: Callable[[], None]) -> None:
        """Something that the program asked for, outside of reading."""
        try:
            act()
        except Broken as broken:
            if self._wire is not None:
                self._wire.abort(str(broken))
        self._deliver()

    def _deliver(self) -> None:
        """Behind some messages: what they came to goes to the inbox."""
        if self.core.hello is not None and not self.is_open:
            self.is_open = self._was_open = True
            log.info("connected")
            self._changed()
        if self._batch:
            events = self._batch.copy()
            self._batch.clear()
            self.inbox.put(events)
            if self.inbox.is_full and self._wire is not None:
                self._wire.pause()
            if self.inbox.is_ended and self.end is None:
                self._finish(StentorError("too_slow", "the program has left too many events lying"))
        if self.core.expiring:
            self.core.expiring = False
            self._authenticating = asyncio.get_running_loop().create_task(self._authenticate())
        if self.core.cursor is not None and self.is_open:
            self._ask_cursor()

    def _ask_cursor(self) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._cursor_at > CURSOR_EVERY:
            self._cursor_at = now
            self.core.ask({"op": "ping"}, lambda answer, error: None)

    async def _authenticate(self) -> None:
        """The token is about to expire."""
        try:
            token = await self.token()
        except Exception as error:
            log.warning("no new token: %s", error)
            return
        # The same one again would change nothing.
        if token is not None and token != self._shown:
            self._shown = token
            self.core.ask({"op": "auth", "token": token}, lambda answer, error: None)

    def _finish(self, error: StentorError) -> None:
        """There will be no connection any more."""
        self.end = error
        self.is_open = False
        self.inbox.end(error)
        if self._wire is not None:
            self._wire.abort(str(error))
        self._changed()


def _bounded(seconds: float) -> float:
    """What a server says, if it is a time at all."""
    return min(max(0.0, seconds), AWAY_MAX)


async def ask_token(token: Token | None) -> str | None:
    """The word to show. A plain function is called in a thread, since it may take its time; one that is `async` here."""
    if not callable(token):
        return token
    if inspect.iscoroutinefunction(token):
        said = await token()
    else:
        said = await asyncio.get_running_loop().run_in_executor(None, token)
        if inspect.isawaitable(said):
            said = await said
    return str(said)


async def fetch_snapshot(options: Options, names: Sequence[str]) -> dict[str, Any]:
    """Last values, over a connection of their own: complete, because the answer to a `ping` comes behind them. Raises what went wrong; who calls it says how
    long it may take."""
    trouble: Exception | None = None
    for url in options.urls:
        try:
            return await _fetch(url, options, names)
        except (OSError, Refused) as error:
            trouble = StentorError("unreachable", f"{url}: {error}")
    assert trouble is not None
    raise trouble


async def _fetch(url: str, options: Options, names: Sequence[str]) -> dict[str, Any]:
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    values: dict[str, Any] = {}
    wires: list[Wire] = []

    def emit(event: Item) -> None:
        if isinstance(event, Update):
            values[event.topic] = event.data
        elif isinstance(event, StentorError) and not done.done():
            done.set_exception(event)

    def synced() -> None:
        if not done.done():
            done.set_result(None)

    core = Core(emit=emit, send=lambda text: wires[0].send(text), loads=loads_of(options.parse_float), topics_max=0, synced=synced)
    # The slowest rate there is: of what comes behind the last values nothing is wanted.
    core.subscribe(names, "latest", 0.001, True, None)
    wire = await open_wire(
        url,
        token=await ask_token(options.token),
        tls=options.tls,
        compression=options.compression,
        message_max=options.message_max,
        made=wires.append,
        read=core.read,
        batch=lambda: None,
    )
    try:
        # Either of them; each has its own kind of result.
        ends: list[asyncio.Future[Any]] = [done, wire.closed]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if not done.done():
            code, why = wire.closed.result()
            raise StentorError("unauthorized" if code == 4001 else "disconnected", f"{why or core.farewell or 'the connection ended'} ({code})")
        done.result()
        return values
    finally:
        await wire.close(0.5)
