"""Where each topic stands: what it is numbered by, which number came last, and what an arriving number therefore is: the next, one had before, one behind a
gap, or the first of something new.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ._events import Gap, Reset, Status, Subscribed, Update
from ._inbox import Item
from ._names import Point, is_pattern, matches


class Broken(Exception):
    """The connection is of no use any more."""


class Want:
    """A name that the program has subscribed to."""

    __slots__ = ("again", "agreed", "alone", "call", "is_old", "is_told", "knows_all", "misses", "mode", "name", "rate", "snapshot", "start")

    def __init__(self, name: str, mode: str, rate: float | None, snapshot: bool, start: str | Mapping[str, Point] | None) -> None:
        self.name = name
        self.mode = mode
        self.rate = rate
        self.snapshot = snapshot
        self.start = start
        #: Which call of the program's it came with; and the same, once names of other calls must not go in one command with it.
        self.call = self.alone = 0
        #: What the server has agreed to, on this connection.
        self.agreed: Subscribed | None = None
        #: It was asked for again, on this connection, without those that it was refused with: what was asked before says nothing of it.
        self.again = False
        #: A server has agreed to it before.
        self.is_old = False
        #: Its last values have come.
        self.is_told = False
        #: All topics that there were have been heard of: those that are not known are new.
        self.knows_all = False
        #: Every publication was to come, and the connection was lost: what came into being meanwhile is missing.
        self.misses = False

    def how(self) -> tuple[str, float | None, bool, bool, bool, str, int]:
        """What has to be the same for names to go in one command."""
        return self.mode, self.rate, self.snapshot, self.is_old, self.is_told, self.start if isinstance(self.start, str) else "", self.alone


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
        #: The first number of a gap, which was asked for once.
        self.gap: int | None = None


class Topics:
    """The names that are wanted, and the topics that they have brought."""

    def __init__(self, emit: Callable[[Item], None], topics_max: int) -> None:
        self._emit = emit
        self._topics_max = topics_max
        self.wants: dict[str, Want] = {}
        self._patterns: list[Want] = []
        self.places: dict[bytes, Place] = {}
        #: There were more topics than are remembered: one that isn't known may be old.
        self.has_forgotten = False
        #: Topics that have keyframes.
        self.keyed: set[str] = set()
        #: Topics that are new among the last values that are coming began while the connection was lost.
        self.was_away = False
        #: After a loss, until all last values have come: it was resumed by a cursor; the server has said that what one stood at is void.
        self.by_cursor = False
        self.is_void = False
        #: Something is missing, and is to be asked for by its topic's own point.
        self.has_gap = False

    # ---- What comes ---------------------------------------------------------------------------------------------------------------

    def arrive(self, topic: str, first: int, last: int, epoch: str | None, event: Update | Gap) -> None:
        """A publication; or what stands in the place of one, or of some."""
        place = self._place(topic)
        if place.topic not in self.wants and not self._wants_of(topic):
            return  # It was on its way when we left.
        if place.before:
            self._rejoin(place, first, last, epoch)
        if epoch is not None and place.epoch != epoch:
            if place.epoch is not None and place.seq:
                self._emit(Reset(topic, epoch, first - 1, "epoch"))
            place.epoch, place.seq = epoch, None
        if place.seq is not None:
            if last <= place.seq:
                return  # Had before.
            if place.gapless and first > place.seq + 1:
                self._gap(place, first)
            if isinstance(event, Gap) and first <= place.seq:
                event = Gap(topic, place.seq + 1, last, event.why)
        place.seq = last
        if isinstance(event, Update) and event.is_key:
            self.keyed.add(topic)
        self._emit(event)

    def stand(self, topic: str, first: int, last: int, epoch: str, event: Update | Gap) -> None:
        """A last value, or what stands in its place: the last ones that are not coming."""
        is_key = isinstance(event, Update) and event.is_key
        is_new = topic.encode() not in self.places
        place = self._place(topic)
        if not self._wants_of(topic):
            return
        if place.before:
            had = place.seq if place.epoch == epoch else None
            self._rejoin(place, first, last, epoch)
            if place.seq == last and not is_key:
                return  # As it was left.
            if isinstance(event, Gap) and had is not None and first <= had < last:
                event = Gap(topic, had + 1, last, event.why)
        elif is_new and self.was_away and not self.has_forgotten and first > 1:
            self._emit(Gap(topic, 1, first - 1, "reconnect"))
        if place.seq is not None and place.epoch == epoch and last < place.seq and not is_key:
            return  # Newer ones came already.
        place.epoch, place.seq = epoch, last
        if is_key:
            self.keyed.add(topic)
        self._emit(event)

    def skip(self, skip: dict[str, Any]) -> None:
        topic, first, last = skip["topic"], skip["from"], skip["to"]
        gap = Gap(topic, first, last, skip.get("why", ""))
        epoch = skip.get("epoch")
        if gap.why == "too_large":
            # In the place of updates; or of a snapshot, which says the epoch, as a topic's first publication does.
            place = self.places.get(topic.encode())
            is_first = first == 1 and (place is None or (not place.before and place.seq == 0))
            if epoch is None or is_first:
                return self.arrive(topic, first, last, epoch, gap)
            return self.stand(topic, first, last, epoch, gap)
        if not self._wants_of(topic):
            return
        place = self._place(topic)
        if place.before:
            self._rejoin(place, first, last, epoch)
        place.seq = last
        self._emit(gap)

    def reset(self, reset: dict[str, Any]) -> None:
        self.is_void = True
        topic = reset["topic"]
        if not self._wants_of(topic):
            return
        place = self._place(topic)
        place.epoch, place.seq, place.before = reset["epoch"], reset["seq"], False
        self._emit(Reset(topic, reset["epoch"], reset["seq"], reset.get("why", "")))

    # ---- Losing a connection, and coming back -------------------------------------------------------------------------------------

    def lost(self) -> None:
        """There is no connection any more: nothing is known to go on."""
        for place in self.places.values():
            place.before = True
            place.gapless = False
        for want in self.wants.values():
            want.misses = want.misses or (want.knows_all and want.agreed is not None and want.agreed.mode == "all")
            want.agreed = None
            want.again = False

    def left(self, wants: list[Want], room: int) -> dict[str, Point]:
        """Where the topics of names were left: those that are names themselves, and as many others as there is room to name."""
        points: dict[str, Point] = {}
        for place in self.covered(wants):
            if not place.before or place.seq is None or place.epoch is None:
                continue
            if place.topic not in self.wants:
                room -= 1
                if room < 0:
                    continue
            points[place.topic] = (place.epoch, place.seq)
        return points

    def acknowledged(self, topic: str, epoch: str, seq: int, point: Point | None) -> None:
        """The server says where a topic stands as it begins to send it."""
        place = self._place(topic)
        if point is not None:
            # It goes on from there, or with a reset.
            place.epoch, place.seq, place.before = epoch, point[1] if point[0] == epoch else seq, False
        elif place.before:
            want = self.wants.get(topic)
            if self.by_cursor:
                return  # It goes on, or there will be a reset.
            if place.epoch != epoch:
                self._rejoin(place, seq + 1, seq, epoch)
                place.epoch, place.seq = epoch, seq
            elif want is not None and not want.snapshot:
                self._rejoin(place, seq + 1, seq, epoch)
                place.seq = seq
        else:
            place.epoch, place.seq = epoch, seq

    def settle(self) -> None:
        """After a loss all last values have come: who was not heard of is gone, or can't be known to go on."""
        goes_on = self.by_cursor and not self.is_void
        self.by_cursor = False
        for name, place in list(self.places.items()):
            if not place.before:
                continue
            if goes_on and place.gapless:
                place.before = False
            else:
                del self.places[name]
                if place.seq is not None:
                    self._emit(Reset(place.topic, None, 0, "reconnect"))

    # ---- Names --------------------------------------------------------------------------------------------------------------------

    def covered(self, wants: list[Want]) -> Iterator[Place]:
        """The topics that names stand for, as far as they are known."""
        if any(is_pattern(want.name) for want in wants):
            yield from (place for place in self.places.values() if any(matches(want.name, place.topic) for want in wants))
        else:
            yield from (place for want in wants if (place := self.places.get(want.name.encode())) is not None)

    def epoch(self, topic: str) -> str | None:
        place = self.places.get(topic.encode())
        return place.epoch if place else None

    def list_patterns(self) -> None:
        self._patterns = [want for want in self.wants.values() if is_pattern(want.name)]

    def start_anew(self, wants: list[Want], points: Mapping[str, Point]) -> None:
        """These begin now, where they weren't without a gap before."""
        for place in self.covered(wants):
            if not place.before and not place.gapless and place.topic not in points:
                place.seq = None

    def measure(self, wants: list[Want]) -> None:
        """The server has agreed to other things for these: whether their topics come without a gap."""
        for place in self.covered(wants):
            place.gapless = self._is_gapless(place.topic)

    def forget(self, ended: list[Want]) -> None:
        """Of topics that nobody wants any more."""
        self.list_patterns()
        for place in list(self.covered(ended)):
            if not self._wants_of(place.topic):
                del self.places[place.topic.encode()]
        self.measure(ended)

    # ---- One topic ----------------------------------------------------------------------------------------------------------------

    def _rejoin(self, place: Place, first: int, last: int, epoch: str | None) -> None:
        """Something of a topic comes after a loss: says what is missing, or that it can't be known."""
        place.before = False
        had = place.seq
        if had is None or (self.by_cursor and not self.is_void and place.gapless and epoch in (None, place.epoch)):
            return
        if epoch is None or epoch != place.epoch or last < had:
            place.seq = None
            self._emit(Reset(place.topic, epoch, first - 1, "reconnect"))
        elif last > had:
            place.seq = None
            if first > had + 1 and place.gapless:
                self._emit(Gap(place.topic, had + 1, first - 1, "reconnect"))

    def _gap(self, place: Place, behind: int) -> None:
        """What must not happen: something is missing before a number. Comes back for it; if it isn't there then either, it is a gap."""
        assert place.seq is not None
        first, last = place.seq + 1, behind - 1
        if place.gap == first:
            place.gap = None
            return self._emit(Gap(place.topic, first, last, "missing"))
        place.gap, self.has_gap = first, True
        why = f"{place.topic}: {first} to {last} did not arrive; they are asked for again"
        self._emit(Status("gap", (place.topic,), message=why))
        raise Broken(why)

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
                self.has_forgotten = True
        return place

    def _wants_of(self, topic: str) -> list[Want]:
        exact = self.wants.get(topic)
        found = [want for want in self._patterns if matches(want.name, topic)]
        return found if exact is None else [exact, *found]

    def _is_gapless(self, topic: str) -> bool:
        # Where names overlap, the server delivers the most of what they say.
        return any(want.agreed is not None and want.agreed.mode == "all" for want in self._wants_of(topic))
