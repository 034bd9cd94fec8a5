"""What a program is told: publications, and what became of those that it is not told.

Each is a small class that `match` takes apart: `Update(topic, seq, data)`, `Gap(topic, first, last, why)`, `Reset(topic)`, `Status(code)`.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


class Update:
    """A publication, or a topic's last value (`snapshot`).

    A payload is parsed when `data` is first asked for, so that what a program passes over, or on, costs nothing.
    """

    __slots__ = ("_data", "_loads", "_raw", "epoch", "is_binary", "is_key", "is_snapshot", "is_stale", "seq", "topic", "ts")
    __match_args__ = ("topic", "seq", "data")

    topic: str
    #: The number of the publication within its topic.
    seq: int
    #: When the server took it in, in microseconds since the Unix epoch.
    ts: int
    #: Which numbering `seq` belongs to; `None` as long as nobody has told.
    epoch: str | None
    #: A last value, not something new.
    is_snapshot: bool
    #: A keyframe: says everything about its topic. What follows may be changes to it.
    is_key: bool
    #: A last value whose source is known to be gone.
    is_stale: bool
    #: The payload was published as bytes, not as JSON or text: `data` is these bytes.
    is_binary: bool

    def __init__(
        self,
        topic: str,
        seq: int,
        ts: int,
        epoch: str | None,
        raw: bytes,
        loads: Callable[[bytes], Any],
        is_snapshot: bool = False,
        is_key: bool = False,
        is_stale: bool = False,
        is_binary: bool = False,
    ) -> None:
        self.topic = topic
        self.seq = seq
        self.ts = ts
        self.epoch = epoch
        self._raw = raw
        self._loads = loads
        self.is_snapshot = is_snapshot
        self.is_key = is_key
        self.is_stale = is_stale
        self.is_binary = is_binary

    @property
    def raw(self) -> bytes:
        """The payload byte for byte as it was published; what was published as text is a JSON string."""
        return base64.b64decode(self._raw) if self.is_binary else self._raw

    @property
    def data(self) -> Any:
        """The payload, parsed: by orjson if it is installed, else by json, or as `connect` was told."""
        try:
            return self._data
        except AttributeError:
            self._data: Any = self.raw if self.is_binary else self._loads(self._raw)
            return self._data

    def __repr__(self) -> str:
        kind = ", is_snapshot=True" if self.is_snapshot else ""
        return f"Update({self.topic!r}, {self.seq}, {self.raw!r}{kind})"


@dataclass(frozen=True, slots=True)
class Gap:
    """Publications `first` to `last` of a topic are not coming. What is built of changes is not good any more."""

    topic: str
    first: int
    last: int
    #: `slow`: this program, or its connection, was; `too_large`: nobody could be sent it; `reconnect`: they came while there was no connection,
    #: and the server has them no more.
    why: str


@dataclass(frozen=True, slots=True)
class Reset:
    """A topic can't be continued where it was left: what is known of it is to be dropped. What follows, if it has a value, begins anew."""

    topic: str
    #: Its numbering now, if that is known.
    epoch: str | None = None
    #: It goes on behind this number.
    seq: int = 0
    #: `epoch`: the numbering has begun anew, as by a restart; `history`: too long ago; `cursor`: the place that one stood at is good no more, for either reason;
    #: `reconnect`: this client has found so after a loss.
    why: str = ""


@dataclass(frozen=True, slots=True)
class Status:
    """Something to know of the connection, or of the sources of topics."""

    #: `connected`, `lost`, `gap` (numbers are missing that should have come: they are being fetched on another connection) from this client; `draining`,
    #: `stale`, `fresh`, `token_expiring` and whatever comes later from the server, also errors that answer nothing, such as `lagged`.
    code: str
    #: The names that it is about, if it is about some.
    topics: tuple[str, ...] = ()
    #: Since when, in microseconds since the Unix epoch.
    since: int | None = None
    #: In words, where there are any.
    message: str = ""


#: What iterating over a client gives.
Event = Update | Gap | Reset | Status


@dataclass(frozen=True, slots=True)
class Mark:
    """Between two events, for this client alone: up to here everything has come, as the server says."""

    cursor: str


@dataclass(frozen=True, slots=True)
class Receipt:
    """The server took a publication in: its number and its time, in microseconds since the Unix epoch."""

    topic: str
    seq: int
    ts: int


@dataclass(frozen=True, slots=True)
class Subscribed:
    """How the server agreed to send what a name stands for."""

    mode: str
    rate: float | None = None
    #: Seconds that its publications come late, where one's rights say so.
    delayed: float | None = None


class StentorError(Exception):
    """The server, or this client, refused. `code` is for programs and stays the same: the protocol's, or one of these:

    `unreachable`, `refused` (before there was a WebSocket), `disconnected` (nobody knows whether a publication was taken), `closed`, `too_slow` (the
    program is, and has chosen to be told so).
    """

    code: str
    #: What was refused, if it was subscriptions.
    names: tuple[str, ...]

    def __init__(self, code: str, message: str, names: tuple[str, ...] = ()) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.names = names
