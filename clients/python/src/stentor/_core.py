"""The protocol as a client sees it, without sockets, threads or clocks: messages in, events and commands out.

It keeps what the program wants, and for each topic seen where it stands (`_topics`). With this every number is accounted for: what comes twice is told once, what is
missing is fetched, or told.

After a loss everything is asked for again. In mode `all` topics go on where they were left: all at once, if the server gives cursors, else each by its
own point, as many as the server lets one name. A `ping` goes behind it, and its answer comes behind all snapshots: a topic that nothing was heard of until
then can't be continued, and is told as a `Reset`. What the new server numbers otherwise is a `Reset` too, and never a `Gap`.

Memory: one small record for each topic, up to `topics_max`, and what waits for its answer.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from ._events import Mark, Receipt, StentorError, Status, Subscribed, Update
from ._inbox import Item
from ._messages import PUBLICATION, payload, window_of
from ._names import Point, split
from ._topics import Broken, Topics, Want

#: What is said of an answer that came, or didn't.
Answered = Callable[[dict[str, Any] | None, StentorError | None], None]

#: Of a command that carries many names, what isn't names.
COMMAND_BYTES = 256

#: What a server that says nothing else allows: names of one connection, bytes of one message.
LIMITS = {"topics": 1024, "message": 65_536}

#: Codes of refusals that are about this moment: a name that was taken before will be taken again.
PASSING = ("server_full", "address_full", "draining")


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
        self.topics = Topics(emit, topics_max)
        self._asked: dict[int, Answered] = {}
        self._asking = 0
        self._calls = 0
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
        #: Behind a greeting, until all snapshots have come.
        self._syncing = False

    # ---- What the program says ---------------------------------------------------------------------------------------------------

    def subscribe(self, names: Iterable[str], mode: str, rate: float | None, snapshot: bool, start: str | Mapping[str, Point] | None) -> None:
        wants = [Want(name, mode, rate, snapshot, start) for name in dict.fromkeys(names)]
        self._calls += 1
        for want in wants:
            want.call = self._calls
            known = self.topics.wants.get(want.name)
            if known is not None:
                want.agreed, want.is_old, want.is_told, want.knows_all = known.agreed, known.is_old, known.is_told, known.knows_all
            self.topics.wants[want.name] = want
        self.topics.list_patterns()
        if self.hello is not None and wants:
            self._ask_for(wants)
            self.ask({"op": "ping"}, lambda answer, error: None if error else self._know(wants))

    def unsubscribe(self, names: Iterable[str]) -> None:
        ended = [want for name in names if (want := self.topics.wants.pop(name, None)) is not None]
        self.topics.forget(ended)
        if self.hello is not None:
            self._leave([want.name for want in ended])

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
        self.topics.lost()
        if self.topics.has_gap:
            self.topics.has_gap, self.cursor = False, None  # It may be behind what is missing.
        asked, self._asked = self._asked, {}
        for answered in asked.values():
            answered(None, StentorError("disconnected", "the connection ended before the answer came"))

    def read(self, message: bytes | bytearray) -> None:
        """One message. Raises `Broken` if no more of this connection is to be read."""
        found = PUBLICATION(message)
        if found is None or self.hello is None:
            return self._read(message)
        kind, name, epoch, digits, ts = found.groups()
        seq = int(digits)
        raw = bytes(message[found.end() : -1])
        place = self.topics.places.get(name)
        if place is not None and epoch is None and kind == b"update" and place.seq is not None and not place.before:
            if seq == place.seq + 1 or (seq > place.seq and not place.gapless):
                place.seq = seq
                return self._emit(Update(place.topic, seq, int(ts), place.epoch, raw, self._loads))
        topic, word = name.decode(), epoch.decode() if epoch else None
        if kind == b"update":
            known = place.epoch if place is not None else None
            self.topics.arrive(topic, seq, seq, word, Update(topic, seq, int(ts), word or known, raw, self._loads))
        elif word is not None:
            self.topics.stand(topic, seq, seq, word, Update(topic, seq, int(ts), word, raw, self._loads, is_snapshot=True))

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
            self.topics.arrive(message["topic"], message["seq"], message["seq"], message.get("epoch"), self._published(message, text))
        elif kind == "snapshot":
            self.topics.stand(message["topic"], message["seq"], message["seq"], message["epoch"], self._published(message, text))
        elif kind in ("ack", "pong", "subscriptions"):
            answered = self._asked.pop(message.get("id", 0), None)
            if answered is not None:
                answered(message, None)
        elif kind == "error":
            self._error(message)
        elif kind == "skip":
            self.topics.skip(message)
        elif kind == "reset":
            self.topics.reset(message)
        elif kind == "status":
            self._status(message)
        if "cursor" in message and kind in ("pong", "heartbeat"):
            self._mark(message["cursor"])

    def _mark(self, cursor: str) -> None:
        """Everything up to a place has come: of names whose last values have, too."""
        if cursor != self.cursor and all(want.is_told for want in self.topics.wants.values()):
            self.cursor = cursor
            self._emit(Mark(cursor))

    def _greet(self, hello: dict[str, Any]) -> None:
        self.hello = hello
        self.farewell = ""
        self.window = None
        self._emit(Status("connected", message=hello.get("server", "")))
        wants = list(self.topics.wants.values())
        self.topics.by_cursor = self.topics.is_void = False
        groups: dict[tuple[Any, ...], list[Want]] = {}
        for want in wants:
            groups.setdefault(want.how(), []).append(want)
        room = self._limits()["topics"] - len(wants)
        self._syncing = bool(wants)
        for group in groups.values():
            room -= self._ask_for(group, room)
        if wants:
            self.ask({"op": "ping"}, lambda answer, error: None if error else self._synced(wants))

    def _error(self, message: dict[str, Any]) -> None:
        error = StentorError(message["code"], message["message"], tuple(message.get("topics", ())))
        if "retry_ms" in message:
            self.window = window_of(message["retry_ms"])
        asked = message.get("id")
        if asked is None and error.code in ("bad_json", "bad_command") and self._asked:
            asked = next(iter(self._asked))  # Answers come in order, and all that we say has an id: it couldn't be read.
        answered = self._asked.pop(asked, None) if asked is not None else None
        ended = self.topics.wants.pop(message.get("topic", ""), None) if answered is None else None
        if answered is not None:
            answered(None, error)
        elif ended is not None:
            # Rights that have become less don't cover it any more; the others go on.
            self.topics.forget([ended])
            self._emit(StentorError(error.code, message["message"], (ended.name,)))
        else:
            self.farewell = message["message"]
            if error.code not in ("unauthorized", "replaced"):
                self._emit(Status(error.code, message=self.farewell))

    def _status(self, message: dict[str, Any]) -> None:
        code = message["code"]
        if "retry_ms" in message:
            self.window = window_of(message["retry_ms"])
        if code == "token_expiring":
            self.expiring = True
        self._emit(Status(code, tuple(message.get("topics", ())), message.get("since"), message.get("message", "")))

    # ---- Subscribing -------------------------------------------------------------------------------------------------------------

    def _limits(self) -> dict[str, int]:
        return {**LIMITS, **(self.hello or {}).get("limits", {})}

    def _ask_for(self, wants: list[Want], room: int | None = None) -> int:
        """Asks for names that go in one command, or some; after a loss (`room`) from where their topics were left.

        Topics that a pattern brought are named for that, and only until the server has answered: at most `room` of them. Returns how many these are.
        """
        first = wants[0]
        names = [want.name for want in wants]
        cursor = first.start if isinstance(first.start, str) else None
        points: dict[str, Point] = {}
        if room is not None and first.is_old and first.mode == "all":
            cursor = self.cursor if first.is_told else None
            points = self.topics.left(wants, room) if cursor is None else {}
            self.topics.by_cursor = self.topics.by_cursor or cursor is not None
        for want in wants:
            if isinstance(want.start, Mapping):
                points = {**want.start, **points}
        extra = [topic for topic in points if topic not in self.topics.wants]
        command: dict[str, Any] = {"op": "sub", "mode": first.mode}
        if first.rate is not None:
            command["rate"] = first.rate
        if not first.snapshot:
            command["snapshot"] = False
        parts = list(split([*extra, *names], points, self._limits()["message"] - COMMAND_BYTES))
        misses = any(want.misses for want in wants) and cursor is None
        for nth, (topics, start) in enumerate(parts):
            is_last = nth == len(parts) - 1
            where: str | dict[str, Point] | None = cursor or start or None
            self.ask(
                {**command, "topics": topics, **({"from": where} if where else {})},
                partial(self._answered, wants, topics, start, cursor, misses, extra if is_last else []),
            )
        return len(extra)

    def _answered(
        self,
        wants: list[Want],
        names: list[str],
        points: Mapping[str, Point],
        cursor: str | None,
        misses: bool,
        extra: list[str],
        answer: dict[str, Any] | None,
        error: StentorError | None,
    ) -> None:
        if answer is not None:
            # The answer says where it begins: elsewhere, if the cursor was good no more.
            if cursor is not None and answer.get("cursor", cursor) != cursor:
                self.topics.is_void = True
            self._taken(wants, points, answer, misses, extra)
        elif error is not None and error.code != "disconnected":
            self._refused(wants, names, error)

    def _taken(self, wants: list[Want], points: Mapping[str, Point], answer: dict[str, Any], misses: bool, extra: list[str]) -> None:
        entries = {entry["topic"]: entry for entry in answer.get("topics", ())}
        taken = [want for want in wants if want.name in entries and self.topics.wants.get(want.name) is want]
        # What came so far may have had holes, if it wasn't mode "all".
        self.topics.start_anew([want for want in taken if want.agreed is None or want.agreed.mode != "all"], points)
        for want in taken:
            entry = entries[want.name]
            want.agreed = Subscribed(entry.get("mode", want.mode), entry.get("rate"), entry.get("delayed"))
            want.is_old = True
            want.start = None
            want.misses = want.again = False
        self.topics.was_away = misses
        self.topics.measure(taken)
        for topic, entry in entries.items():
            if "epoch" in entry:
                self.topics.acknowledged(topic, entry["epoch"], entry["seq"], points.get(topic))
        self._leave([topic for topic in extra if topic not in self.topics.wants])

    def _refused(self, wants: list[Want], names: list[str], error: StentorError) -> None:
        """A command for some of the wants, these names, was refused."""
        mine = [want for want in wants if self.topics.wants.get(want.name) is want]
        uncovered = [want for want in mine if want.name in error.names]
        if uncovered:
            return self._narrow(uncovered, [want for want in mine if want.name in names and want not in uncovered], error)
        if error.code in PASSING and any(want.is_old for want in wants):
            raise Broken(str(error))
        if len({want.call for want in wants}) > 1:
            # One name is to blame, and others mustn't end with it: on the next connection each call is asked for by itself.
            for want in wants:
                want.alone = want.call
            raise Broken(str(error))
        for want in mine:
            if want.agreed is not None:
                want.mode, want.rate = want.agreed.mode, want.agreed.rate
            else:
                del self.topics.wants[want.name]
        self.topics.forget([want for want in mine if want.name not in self.topics.wants])
        # Some may have been taken, if it took several commands.
        self._leave([want.name for want in mine if want.name not in self.topics.wants])
        if mine:
            self._emit(StentorError(error.code, str(error).partition(": ")[2], tuple(want.name for want in mine)))

    def _narrow(self, uncovered: list[Want], others: list[Want], error: StentorError) -> None:
        """Rights don't cover some names of a command: they end, and the others are asked for again."""
        for want in uncovered:
            del self.topics.wants[want.name]
        self.topics.forget(uncovered)
        self._leave([want.name for want in uncovered if want.agreed is not None])
        self._emit(StentorError(error.code, str(error).partition(": ")[2], tuple(want.name for want in uncovered)))
        if any(want.is_old and want.agreed is None for want in others):
            raise Broken(str(error))  # They go on where they were, with all that belongs to that: on the next connection.
        if not others:
            return
        for want in others:
            want.again = True
        self._ask_for(others)
        wants = list(self.topics.wants.values()) if self._syncing else others
        self.ask({"op": "ping"}, lambda answer, error: None if error else (self._synced(wants) if self._syncing else self._know(wants)))

    def _leave(self, names: list[str]) -> None:
        for topics, _ in split(names, {}, self._limits()["message"] - COMMAND_BYTES):
            self.ask({"op": "unsub", "topics": topics}, lambda answer, error: None)

    def _know(self, wants: list[Want]) -> None:
        self.topics.was_away = False
        for want in wants:
            if want.again:
                continue  # Another ping is behind it.
            want.is_told = True
            want.knows_all = want.snapshot and not self.topics.has_forgotten

    def _synced(self, wants: list[Want]) -> None:
        """All snapshots have come: who was not heard of is gone, or can't be known to go on."""
        self._know(wants)
        if any(want.again and self.topics.wants.get(want.name) is want for want in wants):
            return
        self._syncing = False
        self.topics.settle()
        self._tell_synced()

    # ---- Publications ------------------------------------------------------------------------------------------------------------

    def _published(self, message: dict[str, Any], text: bytes | bytearray) -> Update:
        is_binary = "base64" in message
        raw = message["base64"].encode() if is_binary else payload(text)
        return Update(
            message["topic"],
            message["seq"],
            message["ts"],
            message.get("epoch") or self.topics.epoch(message["topic"]),
            raw,
            self._loads,
            is_snapshot=message["type"] == "snapshot",
            is_key=message.get("key") is True,
            is_stale=message.get("stale") is True,
            is_binary=is_binary,
        )
