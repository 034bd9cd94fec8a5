"""What the clients for threads and for asyncio have in common."""

from __future__ import annotations

import math
import ssl
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypedDict

from ._engine import Engine, Options, Token
from ._events import Subscribed
from ._inbox import Inbox, WhenSlow


class Settings(TypedDict, total=False):
    """What `connect` takes beside the address."""

    token: Token | None
    timeout: float | None
    when_slow: WhenSlow
    buffer_bytes: int
    parse_float: Callable[[str], Any] | None
    tls: ssl.SSLContext | None
    compression: bool
    topics_max: int
    publishes_max: int
    message_max: int
    backoff: tuple[float, float]
    patience: float


class Base:
    """What one may ask a client at any time."""

    def __init__(self, options: Options, inbox: Inbox) -> None:
        self._options = options
        self._inbox = inbox
        self._cursor: str | None = None
        self._engine = Engine(options, inbox, self._has_changed)

    @property
    def is_open(self) -> bool:
        """There is a connection, and the server has greeted."""
        return self._engine.is_open

    @property
    def subscriptions(self) -> dict[str, Subscribed | None]:
        """The names that are subscribed to, and what the server has agreed to, if it has by now."""
        return {name: want.agreed for name, want in list(self._engine.core.topics.wants.items())}

    @property
    def cursor(self) -> str | None:
        """A place for `subscribe(…, start=…)` on another day, if the server gives any: what was to be told before it, this program has fetched."""
        return self._cursor

    def _check(self) -> None:
        """Raises why there will be no connection any more, if that is so."""
        if self._engine.end is not None:
            raise self._engine.end

    def _has_changed(self) -> None:
        raise NotImplementedError


def options_of(url: str | Sequence[str], settings: Settings) -> Options:
    """Raises `StentorError` and `ValueError` for what can't be meant."""
    return Options(urls=(url,) if isinstance(url, str) else tuple(url), **settings)


def names_of(names: str | Iterable[str]) -> list[str]:
    """One name or several."""
    found = [names] if isinstance(names, str) else list(names)
    if not found:
        raise ValueError("names: expected at least one, found none")
    for name in found:
        if not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance]: not everybody checks types
            raise TypeError(f"names: expected strings, found {name!r}")
    return found


def wanted(names: str | Iterable[str], mode: str, rate: float | None) -> list[str]:
    """The names of a subscription, if it is one."""
    if mode not in ("all", "latest"):
        raise ValueError(f"mode: expected 'all' or 'latest', found {mode!r}")
    if rate is not None and not (rate > 0 and math.isfinite(rate)):
        raise ValueError(f"rate: expected a number above 0, found {rate!r}")
    if rate is not None and mode != "latest":
        raise ValueError("rate: it goes with mode='latest' only")
    return names_of(names)
