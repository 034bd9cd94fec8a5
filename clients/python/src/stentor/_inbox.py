"""What has come and was not yet fetched by the program, in bounded memory.

One thread puts, one takes. What is held is counted in bytes: payloads, and what Python needs for an event. At the bound one of three things
happens, as the program has chosen:

- `wait`: the socket is read no further, until half of it was fetched. Then the server knows that this client is slow, and does what the mode of the
  subscription says.
- `latest`: of each topic only the newest value stays, and what was left out is told by a `Gap` before it. Of topics that have keyframes, what came since
  the newest keyframe stays too, as long as there is room.
- `error`: it ends, once what had come was fetched.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Literal

from ._events import Event, Gap, Mark, Reset, StentorError, Update

#: What is between two events, too, and what ends them.
Item = Event | Mark | StentorError

WhenSlow = Literal["wait", "latest", "error"]

#: An event without its payload: the object, its numbers, its place in the queue (sys.getsizeof, Python 3.11, rounded up).
EVENT_BYTES = 320

#: Events handed out at once: few enough that what waits behind them can still be replaced by newer values.
TAKEN_MAX = 256


class Inbox:
    """A queue between one that puts and one that takes."""

    def __init__(self, bytes_max: int, when_slow: WhenSlow, wake: Callable[[], None], room: Callable[[], None]) -> None:
        """`wake` is called when there is something, `room` when there is room again, both by the other thread."""
        self._bytes_max = bytes_max
        self._when_slow = when_slow
        self._wake = wake
        self._room = room
        self._lock = threading.Lock()
        self._events: deque[Item] = deque()
        self._bytes = 0
        self._compact_at = bytes_max
        self._ended = False
        #: Topics that have keyframes, whose values are changes; for whoever puts to say.
        self.keyed: set[str] = set()
        #: Nothing more is to be put, until there is room.
        self.is_full = False

    def put(self, events: list[Item]) -> None:
        """Takes what has come. Whether more may come is `is_full`."""
        with self._lock:
            if self._ended:
                return
            self._events.extend(events)
            self._bytes += sum(map(_cost, events))
            if self._bytes >= self._compact_at:
                self._overflow()
        self._wake()

    def end(self, error: StentorError | None = None) -> None:
        """Nothing more will come. What is there can still be taken."""
        with self._lock:
            if error is not None and not self._ended:
                self._events.append(error)
            self._ended = True
            self.is_full = False  # What would come is not held: nobody need wait for room.
        self._wake()

    def take(self) -> list[Item] | None:
        """Some of what has come, in order; nothing if there is nothing now, `None` if there will be nothing more."""
        with self._lock:
            events = self._events
            taken = [events.popleft() for _ in range(min(len(events), TAKEN_MAX))]
            self._bytes -= sum(map(_cost, taken))
            has_room = self.is_full and self._bytes <= self._bytes_max // 2
            if has_room:
                self.is_full = False
            if self._bytes <= self._bytes_max // 2:
                self._compact_at = self._bytes_max
            if not taken and self._ended:
                return None
        if has_room:
            self._room()
        return taken

    @property
    def is_ended(self) -> bool:
        """Nothing more is taken in."""
        return self._ended

    @property
    def is_empty(self) -> bool:
        """There is nothing to take, and may be later."""
        return not self._events and not self._ended

    @property
    def bytes(self) -> int:
        """Held at this moment."""
        return self._bytes

    def _overflow(self) -> None:
        if self._when_slow == "wait":
            self.is_full = True
        elif self._when_slow == "error":
            self._ended = True
            self._events.append(StentorError("too_slow", f"the program has left {self._bytes} bytes of events lying"))
        else:
            self._compact(keep_changes=True)
            if self._bytes > self._bytes_max // 2:
                self._compact(keep_changes=False)
            # Many topics: their newest values may be more than the bound. Each time again would be no work but this.
            self._compact_at = max(self._bytes_max, 2 * self._bytes)

    def _compact(self, keep_changes: bool) -> None:
        """Leaves of each topic the newest value, behind the `Gap` of what it replaces, behind the newest `Reset`; and of everything else one of a kind."""
        kept: list[Item] = []
        #: From the newest event backwards: what is known of each topic.
        topics: dict[str, _Kept] = {}
        others: set[object] = set()
        for event in reversed(self._events):
            if isinstance(event, Update):
                topic = topics.setdefault(event.topic, _Kept())
                changes = keep_changes and event.topic in self.keyed
                if topic.reset is not None:
                    continue
                if topic.newest is None or (changes and not topic.has_key and topic.first is None):
                    topic.newest = topic.newest or event
                    topic.oldest = event
                    topic.has_key = event.is_key
                    kept.append(event)
                else:
                    topic.leave_out(event.seq, event.seq, "slow")
            elif isinstance(event, Gap):
                topic = topics.setdefault(event.topic, _Kept())
                if topic.reset is not None:
                    continue
                if topic.newest is None:
                    topic.end(event)
                else:
                    topic.leave_out(event.first, event.last, event.why)
            elif isinstance(event, Reset):
                topic = topics.setdefault(event.topic, _Kept())
                topic.reset = topic.reset or event
            elif isinstance(event, StentorError):
                kept.append(event)
            elif (kind := Mark if isinstance(event, Mark) else event) not in others:
                others.add(kind)
                kept.append(event)
        self._events = deque()
        told: set[str] = set()
        for event in reversed(kept):
            if isinstance(event, Update) and event.topic not in told:
                told.add(event.topic)
                self._events.extend(topics[event.topic].before(event.topic))
            self._events.append(event)
        for name, topic in topics.items():
            if name not in told:
                self._events.extend(topic.before(name))
            if topic.behind is not None:
                self._events.append(topic.behind)
        self._bytes = sum(map(_cost, self._events))


class _Kept:
    """What stays of a topic."""

    __slots__ = ("behind", "first", "has_key", "last", "newest", "oldest", "reset", "why")

    def __init__(self) -> None:
        self.newest: Update | None = None
        self.oldest: Update | None = None
        self.has_key = False
        self.reset: Reset | None = None
        self.behind: Gap | None = None
        self.first: int | None = None
        self.last = 0
        self.why = ""

    def leave_out(self, first: int, last: int, why: str) -> None:
        if self.first is None:
            self.first, self.last, self.why = first, last, why
        else:
            self.first, self.last = min(first, self.first), max(last, self.last)
            if why == "slow":
                self.why = why

    def end(self, gap: Gap) -> None:
        """Nothing came behind this yet. What has one kind of gap after the other is told one from the first to the last."""
        self.behind = Gap(gap.topic, gap.first, self.behind.last if self.behind else gap.last, gap.why)

    def before(self, name: str) -> list[Event]:
        """What is to be told before the first value that stays."""
        events: list[Event] = []
        if self.reset is not None:
            events.append(self.reset)
        last = self.last
        if self.oldest is not None:
            last = min(last, self.oldest.seq - 1)
        if self.first is not None and last >= self.first:
            events.append(Gap(name, self.first, last, self.why))
        return events


def _cost(event: Item) -> int:
    return EVENT_BYTES + len(event._raw) if type(event) is Update else EVENT_BYTES
