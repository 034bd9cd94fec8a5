"""What waits for a slow program: bounded, and nothing left out in silence."""

from __future__ import annotations

import random
from typing import Any

import pytest
from stentor import Gap, Reset, StentorError, Status, Update
from stentor._events import Mark
from stentor._inbox import EVENT_BYTES, Inbox, Item, WhenSlow
from world import Book


def update(topic: str, seq: int, **flags: Any) -> Update:
    return Update(topic, seq, seq, "k", b"%d" % seq, int, **flags)


def inbox(events: int, when_slow: WhenSlow = "latest") -> Inbox:
    """One that has room for so many small events."""
    return Inbox(events * (EVENT_BYTES + 1), when_slow, lambda: None, lambda: None)


def everything(box: Inbox) -> list[Any]:
    taken: list[Any] = []
    while some := box.take():
        taken += some
    return [(event.topic, event.seq) if isinstance(event, Update) else event for event in taken]


def test_the_newest_value_stays_behind_a_gap_of_what_it_replaces() -> None:
    box = inbox(4)
    box.put([update("a", 1), update("b", 1), update("a", 2), update("a", 3)])
    assert everything(box) == [("b", 1), Gap("a", 1, 2, "slow"), ("a", 3)]


def test_gaps_and_resets_are_kept_in_their_places() -> None:
    box = inbox(7)
    box.put(
        [
            update("a", 1),
            Reset("a", "k", 1, "epoch"),
            update("a", 2),
            Gap("a", 3, 5, "too_large"),
            update("a", 6),
            update("b", 1),
            Gap("b", 2, 2, "too_large"),
            Gap("b", 3, 3, "too_large"),
        ]
    )
    assert everything(box) == [Reset("a", "k", 1, "epoch"), Gap("a", 2, 5, "slow"), ("a", 6), ("b", 1), Gap("b", 2, 3, "too_large")]


def test_a_value_that_comes_again_is_no_gap() -> None:
    box = inbox(2)
    box.put([update("a", 5), update("a", 5, is_snapshot=True)])
    assert everything(box) == [("a", 5)]


def test_of_the_marks_the_newest_stays_in_its_place() -> None:
    box = inbox(6)
    box.put([update("a", 1), Mark("C1"), update("b", 1), Mark("C2"), Status("stale"), update("c", 1)])
    box.put([update("d", 1), Status("stale")])
    assert everything(box) == [("a", 1), ("b", 1), Mark("C2"), ("c", 1), ("d", 1), Status("stale")]


def test_changes_stay_from_the_newest_keyframe_on_as_long_as_there_is_room() -> None:
    box = inbox(10)
    box.keyed.add("a")
    box.put([update("a", 1, is_key=True), *(update("a", seq) for seq in range(2, 7)), update("a", 7, is_key=True), update("a", 8), update("a", 9)])
    box.put([update("b", 1)])
    assert everything(box) == [Gap("a", 1, 6, "slow"), ("a", 7), ("a", 8), ("a", 9), ("b", 1)]
    box.put([update("a", 10, is_key=True), *(update("a", seq) for seq in range(11, 20))])
    assert everything(box) == [Gap("a", 10, 18, "slow"), ("a", 19)]


def test_whoever_waits_is_full_at_the_bound_and_goes_on_below_half() -> None:
    told: list[str] = []
    box = Inbox(600 * (EVENT_BYTES + 1), "wait", lambda: None, lambda: told.append("room"))
    box.put([update("a", 1)] * 599)
    assert not box.is_full
    box.put([update("a", 600)])
    assert box.is_full
    box.take()
    assert box.is_full and not told
    box.take()
    assert not box.is_full and told == ["room"]


def test_whoever_wants_an_error_gets_it_behind_what_had_come() -> None:
    box = inbox(2, "error")
    box.put([update("a", 1), update("a", 2)])
    box.put([update("a", 3)])
    first, second, error = everything(box)
    assert (first, second) == (("a", 1), ("a", 2))
    assert isinstance(error, StentorError) and error.code == "too_slow"
    assert box.take() is None


@pytest.mark.parametrize("seed", range(200))
def test_whatever_is_left_out_is_told_and_the_last_values_are_there(seed: int) -> None:
    chance = random.Random(seed)
    box = inbox(chance.randint(2, 40))
    topics = "abcd"[: chance.randint(1, 4)]
    seqs = dict.fromkeys(topics, 0)
    newest: dict[str, int] = {}
    book = Book()
    most = 0

    def take() -> None:
        for event in box.take() or []:
            assert not isinstance(event, (StentorError, Mark))
            book.take(event)

    for _ in range(chance.randint(1, 400)):
        topic = chance.choice(topics)
        events: list[Item] = [Status("draining")] if chance.random() < 0.05 else []
        if chance.random() < 0.05:
            newest.pop(topic, None)
            seqs[topic] = 0
            events.append(Reset(topic, "k", 0, "epoch"))
        elif chance.random() < 0.1:
            gap = Gap(topic, seqs[topic] + 1, seqs[topic] + 3, "too_large")
            seqs[topic] += 3
            newest.pop(topic, None)
            events.append(gap)
        else:
            seqs[topic] += 1
            newest[topic] = seqs[topic]
            events.append(update(topic, seqs[topic]))
        box.put(list(events))
        most = max(most, box.bytes)
        if chance.random() < 0.05:
            take()
    take()
    assert book.values == newest
    assert most <= max(40, 8 * len(topics)) * (EVENT_BYTES + 1)
