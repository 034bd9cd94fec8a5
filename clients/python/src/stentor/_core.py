"""The protocol as a client sees it, without sockets, threads or clocks: messages in, events and commands out.

It keeps what the program wants (names), and for each topic seen where it stands: its epoch and the last number that came. With this every number is
accounted for: what comes twice is told once, what is missing is fetched, or told.

After a loss everything is asked for again. In mode `all` topics go on where they were left: all at once, if the server gives cursors, else each by its
own point, as many as the server lets one name. A `ping` goes behind it, and its answer comes behind all snapshots: a topic that nothing was heard of until
then can't be continued, and is told as a `Reset`. What the new server numbers otherwise is a `Reset` too, and never a `Gap`.

Memory: one small record for each topic, up to `topics_max`, and what waits for its answer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, cast

from ._events import Gap, Mark, Receipt, Reset, StentorError, Status, Subscribed, Update
from ._inbox import Item
from ._names import Point, is_pattern, matches, split

#: What is said of an answer that came, or didn't.
Answered = Callable[[dict[str, Any] | None, StentorError | None], None]

#: Of a command that carries many names, what isn't names.
COMMAND_BYTES = 256

#: What a server that says nothing else allows: names of one connection, bytes of one message.
LIMITS = {"topics": 1024, "message": 65_536}

#: The message that most are. Others, and such as have other fields, are taken apart the long way. `data` is the last field.
UPDATE = re.compile(rb'\{"type":"update","topic":"([^"\\]+)",(?:"epoch":"([^"\\]+)",)?"seq":(\d+),"ts":(\d+),"data":').match

#: Codes of refusals that are about this moment: a name that was taken before will be taken again.
PASSING = ("server_full", "address_full", "draining")


class Broken(Exception):
    """The connection is of no use any more."""


class Want:
    """A name that the program has subscribed to."""

    __slots__ = ("agreed", "is_old", "is_told", "knows_all", "misses", "mode", "name", "rate", "snapshot", "start")

    def __init__(self, name: str, mode: str, rate: float | None, snapshot: bool, start: str | Mapping[str, Point] | None) -> None:
        self.name = name
        self.mode = mode
        self.rate = rate
        self.snapshot = snapshot
        self.start = start
        #: What the server has agreed to, on this connection.
        self.agreed: Subscribed | None = None
        #: A server has agreed to it before.
        self.is_old = False
        #: Its last values have come.
        self.is_told = False
        #: All topics that there were have been heard of: those that are not known are new.
        self.knows_all = False
        #: Every publication was to come, and the connection was lost: what came into being meanwhile is missing.
        self.misses = False

    def how(self) -> tuple[str, float | None, bool, bool, bool, str]:
        """What has to be the same for names to go in one command."""
        return self.mode, self.rate, self.snapshot, self.is_old, self.is_told, self.start if isinstance(self.start, str) else ""


class Place:
    """Where a topic stands."""

    __slots__ = ("before", "epoch", "gap", "gapless", "seq", "topic")

    def __init__(self, topic: str, gapless: bool) -> None:
        self.topic = topic
        self.epoch: str | None = None
        #: The last number that came, or was left out.
        self.seq: int | None = None
        #: Numbers have to come one after the other.
        self.gapless = gapless
        #: It is as it was before the connection was lost, and nothing was heard of it since.
        self.before = False
        #: The number behind a gap that was asked for once.
        self.gap: int | None = None


class Core:
    """What a client knows."""

    def __init__(
        self,
        *,
        emit: Callable[[Item], None],
        send: Callable[[bytes], None],
        loads: Callable[[bytes], Any],
        topics_max: int,
        synced: Callable[[], None] = lambda: None,
    ) -> None:
        """`synced` is called when, behind a greeting, all snapshots have come."""
        self._emit = emit
        self._tell_synced = synced
        self._send = send
        self._loads = loads
        self._topics_max = topics_max
        self.wants: dict[str, Want] = {}
        self._patterns: list[Want] = []
        self.places: dict[bytes, Place] = {}
        #: There were more topics than are remembered: one that isn't known may be old.
        self._has_forgotten = False
        self._asked: dict[int, Answered] = {}
        self._asking = 0
        #: The greeting, while there is a connection.
        self.hello: dict[str, Any] | None = None
        #: Up to here everything has come, if the server says so.
        self.cursor: str | None = None
        #: The window, in milliseconds, in which the server wants us back.
        self.window: tuple[float, float] | None = None
        #: What the last message about its end was.
        self.farewell = ""
        #: The server has asked for another token.
        self.expiring = False
        #: Topics that have keyframes.
        self.keyed: set[str] = set()
        #: Topics that are new among the snapshots that are coming began while the connection was lost.
        self._was_away = False
        #: What came before the answer to the ping behind all subscriptions was resumed by a cursor; whether the server said that it is void.
        self._by_cursor = False
        self._is_void = False

    # ---- What the program says ---------------------------------------------------------------------------------------------------

    def subscribe(self, names: Iterable[str], mode: str, rate: float | None, snapshot: bool, start: str | Mapping[str, Point] | None) -> None:
        wants = [Want(name, mode, rate, snapshot, start) for name in dict.fromkeys(names)]
        for want in wants:
            known = self.wants.get(want.name)
            if known is not None:
                want.agreed, want.is_old, want.is_told, want.knows_all = known.agreed, known.is_old, known.is_told, known.knows_all
            self.wants[want.name] = want
        self._reroute()
        if self.hello is not None and wants:
            self._ask_for(wants, again=False)
            self.ask({"op": "ping"}, lambda answer, error: None if error else self._know(wants))

    def unsubscribe(self, names: Iterable[str]) -> None:
        ended = [name for name in names if self.wants.pop(name, None) is not None]
        self._reroute()
        if self.hello is not None:
            self._leave(ended)

    def publish(self, topic: str, raw: bytes, answered: Callable[[Receipt | None, StentorError | None], None]) -> None:
        if self.hello is None:
            return answered(None, StentorError("disconnected", "there is no connection now"))

        def receipt(answer: dict[str, Any] | None, error: StentorError | None) -> None:
            answered(Receipt(answer["topic"], answer["seq"], answer["ts"]) if answer else None, error)

        self._asking += 1
        message = b'{"op":"pub","id":%d,"topic":%b,"data":%b}' % (self._asking, json.dumps(topic).encode(), raw)
        most = self._limits()["message"]
        if len(message) > most:
            return answered(None, StentorError("too_large", f"the message is of {len(message)} bytes, the server takes {most}"))
        self._asked[self._asking] = receipt
        self._send(message)

    def ask(self, command: dict[str, Any], answered: Answered) -> None:
        """Any command; the answer, or that there will be none, is told."""
        if self.hello is None:
            return answered(None, StentorError("disconnected", "there is no connection now"))
        self._asking += 1
        self._asked[self._asking] = answered
        self._send(json.dumps({**command, "id": self._asking}, separators=(",", ":")).encode())

    # ---- What the connection says ------------------------------------------------------------------------------------------------

    def lost(self) -> None:
        """The connection is gone."""
        self.hello = None
        self.expiring = False
        for place in self.places.values():
            place.before = True
            place.gapless = False
        for want in self.wants.values():
            want.misses = want.misses or (want.knows_all and want.agreed is not None and want.agreed.mode == "all")
            want.agreed = None
        asked, self._asked = self._asked, {}
        for answered in asked.values():
            answered(None, StentorError("disconnected", "the connection ended before the answer came"))

    def read(self, message: bytes | bytearray) -> None:
        """One message. Raises `Broken` if no more of this connection is to be read."""
        found = UPDATE(message)
        if found is None or self.hello is None:
            return self._read(message)
        name, epoch, digits, ts = found.groups()
        seq = int(digits)
        raw = bytes(message[found.end() : -1])
        place = self.places.get(name)
        if place is not None and epoch is None and place.seq is not None and not place.before:
            if seq == place.seq + 1 or (seq > place.seq and not place.gapless):
                place.seq = seq
                return self._emit(Update(place.topic, seq, int(ts), place.epoch, raw, self._loads))
        topic, word = name.decode(), epoch.decode() if epoch else None
        known = place.epoch if place is not None else None
        self._arrive(topic, seq, word, Update(topic, seq, int(ts), word or known, raw, self._loads))

    def _read(self, text: bytes | bytearray) -> None:
        try:
            message = json.loads(text)
            kind = message["type"]
        except (ValueError, TypeError, KeyError, RecursionError):
            raise Broken("the server sent what is not a message") from None
        try:
            self._dispatch(kind, message, text)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise Broken(f"a {kind} that lacks what it should have: {error!r}") from error

    def _dispatch(self, kind: str, message: dict[str, Any], text: bytes | bytearray) -> None:
        if kind == "hello":
            return self._greet(message)
        if self.hello is None:
            if kind == "error":
                self.farewell = message["message"]
            return
        if kind == "update":
            self._arrive(message["topic"], message["seq"], message.get("epoch"), self._published(message, text))
        elif kind == "snapshot":
            self._stand(message["topic"], message["seq"], message["epoch"], self._published(message, text))
        elif kind in ("ack", "pong", "subscriptions"):
            answered = self._asked.pop(message.get("id", 0), None)
            if answered is not None:
                answered(message, None)
        elif kind == "error":
            self._error(message)
        elif kind == "skip":
            self._skip(message)
        elif kind == "reset":
            self._reset(message)
        elif kind == "status":
            self._status(message)
        if "cursor" in message and kind in ("pong", "heartbeat"):
            self._mark(message["cursor"])

    def _mark(self, cursor: str) -> None:
        """Everything up to a place has come: of names whose last values have, too."""
        if cursor != self.cursor and all(want.is_told for want in self.wants.values()):
            self.cursor = cursor
            self._emit(Mark(cursor))

    def _greet(self, hello: dict[str, Any]) -> None:
        self.hello = hello
        self.farewell = ""
        self.window = None
        self._emit(Status("connected", message=hello.get("server", "")))
        wants = list(self.wants.values())
        self._by_cursor = self._is_void = False
        groups: dict[tuple[Any, ...], list[Want]] = {}
        for want in wants:
            groups.setdefault(want.how(), []).append(want)
        for group in groups.values():
            self._ask_for(group, again=True)
        if wants:
            self.ask({"op": "ping"}, lambda answer, error: None if error else self._synced(wants))

    def _error(self, message: dict[str, Any]) -> None:
        error = StentorError(message["code"], message["message"])
        if "retry_ms" in message:
            self.window = _window(message["retry_ms"])
        asked = message.get("id")
        if asked is None and error.code in ("bad_json", "bad_command") and self._asked:
            asked = next(iter(self._asked))  # Answers come in order, and all that we say has an id: it couldn't be read.
        answered = self._asked.pop(asked, None) if asked is not None else None
        if answered is not None:
            answered(None, error)
        else:
            self.farewell = message["message"]

    def _status(self, message: dict[str, Any]) -> None:
        code = message["code"]
        if "retry_ms" in message:
            self.window = _window(message["retry_ms"])
        if code == "token_expiring":
            self.expiring = True
        self._emit(Status(code, tuple(message.get("topics", ())), message.get("since"), message.get("message", "")))

    # ---- Subscribing -------------------------------------------------------------------------------------------------------------

    def _limits(self) -> dict[str, int]:
        return {**LIMITS, **(self.hello or {}).get("limits", {})}

    def _ask_for(self, wants: list[Want], again: bool) -> None:
        """Asks for names that go in one command, or some; after a loss from where their topics were left.

        Topics that a pattern brought are named for that, and only until the server has answered.
        """
        first = wants[0]
        limits = self._limits()
        names = [want.name for want in wants]
        cursor = first.start if isinstance(first.start, str) else None
        points: dict[str, Point] = {}
        if again and first.is_old and first.mode == "all":
            cursor = self.cursor if first.is_told else None
            points = self._left(wants, limits["topics"]) if cursor is None else {}
            self._by_cursor = self._by_cursor or cursor is not None
        for want in wants:
            if isinstance(want.start, Mapping):
                points = {**want.start, **points}
        extra = [topic for topic in points if topic not in self.wants]
        command: dict[str, Any] = {"op": "sub", "mode": first.mode}
        if first.rate is not None:
            command["rate"] = first.rate
        if not first.snapshot:
            command["snapshot"] = False
        parts = list(split([*extra, *names], points, limits["message"] - COMMAND_BYTES))
        misses = any(want.misses for want in wants) and cursor is None
        for nth, (topics, start) in enumerate(parts):
            is_last = nth == len(parts) - 1
            where: str | dict[str, Point] | None = cursor or start or None
            self.ask(
                {**command, "topics": topics, **({"from": where} if where else {})},
                partial(self._answered, wants, start, misses, extra if is_last else []),
            )

    def _left(self, wants: list[Want], most: int) -> dict[str, Point]:
        """Where the topics of names were left, as many as may be named."""
        points: dict[str, Point] = {}
        room = most - len(self.wants)
        for place in self.places.values():
            topic = place.topic
            if not place.before or place.seq is None or place.epoch is None:
                continue
            if any(matches(want.name, topic) for want in wants):
                if topic not in self.wants:
                    room -= 1
                    if room < 0:
                        continue
                points[topic] = (place.epoch, place.seq)
        return points

    def _answered(
        self, wants: list[Want], points: Mapping[str, Point], misses: bool, extra: list[str], answer: dict[str, Any] | None, error: StentorError | None
    ) -> None:
        if answer is not None:
            self._taken(wants, points, answer, misses, extra)
        elif error is not None and error.code != "disconnected":
            self._refused(wants, error)

    def _taken(self, wants: list[Want], points: Mapping[str, Point], answer: dict[str, Any], misses: bool, extra: list[str]) -> None:
        entries = {entry["topic"]: entry for entry in answer.get("topics", ())}
        fresh: list[Want] = []
        for want in wants:
            entry = entries.get(want.name)
            if entry is None or self.wants.get(want.name) is not want:
                continue
            if want.agreed is None or want.agreed.mode != "all":
                fresh.append(want)
            want.agreed = Subscribed(entry.get("mode", want.mode), entry.get("rate"), entry.get("delayed"))
            want.is_old = True
            want.start = None
            want.misses = False
        self._was_away = misses
        for place in self.places.values():
            # What came so far may have had holes, if it wasn't mode "all".
            if not fresh or place.before or place.gapless or place.topic in points:
                continue
            if any(matches(want.name, place.topic) for want in fresh):
                place.seq = None
        self._measure()
        for topic, entry in entries.items():
            if "epoch" in entry:
                self._acknowledged(topic, entry["epoch"], entry["seq"], points.get(topic))
        self._leave([topic for topic in extra if topic not in self.wants])

    def _acknowledged(self, topic: str, epoch: str, seq: int, point: Point | None) -> None:
        """The server says where a topic stands as it begins to send it."""
        place = self._place(topic)
        if point is not None:
            # It goes on from there, or with a reset.
            place.epoch, place.seq, place.before = epoch, point[1] if point[0] == epoch else seq, False
        elif place.before:
            want = self.wants.get(topic)
            if self._by_cursor and place.epoch == epoch:
                return
            if place.epoch != epoch:
                self._rejoin(place, seq, epoch)
                place.epoch, place.seq = epoch, seq
            elif want is not None and not want.snapshot:
                self._rejoin(place, seq + 1, epoch)
                place.seq = seq
        else:
            place.epoch, place.seq = epoch, seq

    def _refused(self, wants: list[Want], error: StentorError) -> None:
        if error.code in PASSING and any(want.is_old for want in wants):
            raise Broken(str(error))
        mine = [want for want in wants if self.wants.get(want.name) is want]
        for want in mine:
            if want.agreed is not None:
                want.mode, want.rate = want.agreed.mode, want.agreed.rate
            else:
                del self.wants[want.name]
        self._reroute()
        # Some may have been taken, if it took several commands.
        self._leave([want.name for want in mine if want.name not in self.wants])
        if mine:
            self._emit(StentorError(error.code, str(error).partition(": ")[2], tuple(want.name for want in mine)))

    def _leave(self, names: list[str]) -> None:
        for topics, _ in split(names, {}, self._limits()["message"] - COMMAND_BYTES):
            self.ask({"op": "unsub", "topics": topics}, lambda answer, error: None)

    def _know(self, wants: list[Want]) -> None:
        self._was_away = False
        for want in wants:
            want.is_told = True
            want.knows_all = want.snapshot and not self._has_forgotten

    def _synced(self, wants: list[Want]) -> None:
        """All snapshots have come: who was not heard of is gone, or can't be known to go on."""
        self._know(wants)
        goes_on = self._by_cursor and not self._is_void
        self._by_cursor = False
        for name, place in list(self.places.items()):
            if not place.before:
                continue
            if goes_on and place.gapless:
                place.before = False
            else:
                del self.places[name]
                if place.seq is not None:
                    self._emit(Reset(place.topic, None, 0, "reconnect"))
        self._tell_synced()

    # ---- Topics ------------------------------------------------------------------------------------------------------------------

    def _wants_of(self, topic: str) -> list[Want]:
        exact = self.wants.get(topic)
        found = [want for want in self._patterns if matches(want.name, topic)]
        return found if exact is None else [exact, *found]

    def _place(self, topic: str) -> Place:
        name = topic.encode()
        place = self.places.get(name)
        if place is None:
            place = Place(topic, self._is_gapless(topic))
            if not self._wants_of(topic):
                return place
            if len(self.places) < self._topics_max:
                self.places[name] = place
            else:
                self._has_forgotten = True
        return place

    def _is_gapless(self, topic: str) -> bool:
        # Where names overlap, the server delivers the most of what they say.
        return any(want.agreed is not None and want.agreed.mode == "all" for want in self._wants_of(topic))

    def _reroute(self) -> None:
        """Subscriptions have changed: topics that nobody wants any more are forgotten."""
        self._patterns = [want for want in self.wants.values() if is_pattern(want.name)]
        for name, place in list(self.places.items()):
            if not self._wants_of(place.topic):
                del self.places[name]
        self._measure()

    def _measure(self) -> None:
        for place in self.places.values():
            place.gapless = self._is_gapless(place.topic)

    def _arrive(self, topic: str, seq: int, epoch: str | None, event: Update | Gap) -> None:
        """A publication, or what stands in its place."""
        place = self._place(topic)
        if place.topic not in self.wants and not self._wants_of(topic):
            return  # It was on its way when we left.
        if place.before:
            self._rejoin(place, seq, epoch)
        if epoch is not None and place.epoch != epoch:
            if place.epoch is not None and place.seq:
                self._emit(Reset(topic, epoch, seq - 1, "epoch"))
            place.epoch, place.seq = epoch, None
        if place.seq is not None:
            if seq <= place.seq:
                return  # Had before.
            if place.gapless and seq > place.seq + 1:
                self._gap(place, seq)
        place.seq = seq
        if isinstance(event, Update) and event.is_key:
            self.keyed.add(topic)
        self._emit(event)

    def _stand(self, topic: str, seq: int, epoch: str, event: Update | Gap) -> None:
        """A last value, or what stands in its place."""
        is_key = isinstance(event, Update) and event.is_key
        is_new = topic.encode() not in self.places
        place = self._place(topic)
        if not self._wants_of(topic):
            return
        if place.before:
            self._rejoin(place, seq, epoch)
            if place.seq == seq and not is_key:
                return  # As it was left.
        elif is_new and self._was_away and not self._has_forgotten and seq > 1:
            self._emit(Gap(topic, 1, seq - 1, "reconnect"))
        if place.seq is not None and place.epoch == epoch and seq < place.seq and not is_key:
            return  # Newer ones came already.
        place.epoch, place.seq = epoch, seq
        if is_key:
            self.keyed.add(topic)
        self._emit(event)

    def _rejoin(self, place: Place, seq: int, epoch: str | None) -> None:
        """Something of a topic comes after a loss: says what is missing, or that it can't be known."""
        place.before = False
        had = place.seq
        if had is None or (self._by_cursor and not self._is_void and place.gapless and epoch in (None, place.epoch)):
            return
        if epoch is None or epoch != place.epoch or seq < had:
            place.seq = None
            self._emit(Reset(place.topic, epoch, max(0, seq - 1) if epoch is None else seq, "reconnect"))
        elif seq > had:
            place.seq = None
            if seq > had + 1 and place.gapless:
                self._emit(Gap(place.topic, had + 1, seq - 1, "reconnect"))

    def _skip(self, skip: dict[str, Any]) -> None:
        topic, first, last = skip["topic"], skip["from"], skip["to"]
        gap = Gap(topic, first, last, skip.get("why", ""))
        epoch = skip.get("epoch")
        if gap.why == "too_large":
            # In the place of an update; or of a snapshot, which says the epoch, as a topic's first publication does.
            place = self.places.get(topic.encode())
            is_first = last == 1 and (place is None or (not place.before and place.seq == 0))
            if epoch is None or is_first:
                return self._arrive(topic, last, epoch, gap)
            return self._stand(topic, last, epoch, gap)
        if not self._wants_of(topic):
            return
        place = self._place(topic)
        if place.before:
            self._rejoin(place, first, epoch)
        place.seq = last
        self._emit(gap)

    def _reset(self, reset: dict[str, Any]) -> None:
        self._is_void = True
        topic = reset["topic"]
        if not self._wants_of(topic):
            return
        place = self._place(topic)
        place.epoch, place.seq, place.before = reset["epoch"], reset["seq"], False
        self._emit(Reset(topic, reset["epoch"], reset["seq"], reset.get("why", "")))

    def _gap(self, place: Place, seq: int) -> None:
        """What must not happen: something is missing in between. Comes back for it; if it isn't there then either, it is a gap."""
        assert place.seq is not None
        first, last = place.seq + 1, seq - 1
        if place.gap == seq:
            place.gap = None
            return self._emit(Gap(place.topic, first, last, "missing"))
        place.gap = seq
        why = f"{place.topic}: {first} to {last} did not arrive; they are asked for again"
        self._emit(Status("gap", (place.topic,), message=why))
        raise Broken(why)

    def _published(self, message: dict[str, Any], text: bytes | bytearray) -> Update:
        is_binary = "base64" in message
        raw = message["base64"].encode() if is_binary else payload(text)
        return Update(
            message["topic"],
            message["seq"],
            message["ts"],
            message.get("epoch") or self._epoch(message["topic"]),
            raw,
            self._loads,
            is_snapshot=message["type"] == "snapshot",
            is_key=message.get("key") is True,
            is_stale=message.get("stale") is True,
            is_binary=is_binary,
        )

    def _epoch(self, topic: str) -> str | None:
        place = self.places.get(topic.encode())
        return place.epoch if place else None


def payload(message: bytes | bytearray) -> bytes:
    """The text of a message's field `data`, as it stands there."""
    text = message.decode()
    decoder = json.JSONDecoder()
    white = re.compile(r"[ \t\n\r]*").match

    def skip(at: int) -> int:
        found = white(text, at)
        return found.end() if found else at

    at = skip(skip(0) + 1)
    while True:
        name, at = decoder.raw_decode(text, at)
        start = skip(skip(at) + 1)
        _, at = decoder.raw_decode(text, start)
        if name == "data":
            return text[start:at].encode()
        at = skip(at)
        if text[at] != ",":
            raise KeyError("data")
        at = skip(at + 1)


def _window(retry: Any) -> tuple[float, float]:
    """A window of milliseconds: two numbers, or one that is its end."""
    if not isinstance(retry, list):
        return 0.0, float(retry)
    first, last = cast("list[float]", retry)
    return float(first), float(last)
