"""What a client makes of messages that no scenario has."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from stentor import Gap, Reset, Status, Update
from stentor._core import Core
from stentor._events import Mark
from stentor._inbox import Item
from stentor._json import dumps, loads_of
from stentor._messages import payload
from stentor._topics import Broken


class World:
    """A core whose server is the test."""

    def __init__(self, **options: Any) -> None:
        self.told: list[Item] = []
        self.sent: list[dict[str, Any]] = []
        settings: dict[str, Any] = {"topics_max": 1000, "loads": json.loads, **options}
        self.core = Core(emit=self.told.append, send=lambda text: self.sent.append(_loads(text)), **settings)

    def hello(self, **limits: int) -> None:
        self.says(type="hello", version=1, server="test", heartbeat=0, limits={"topics": 1024, "message": 65536, **limits})

    def lost(self) -> None:
        self.core.lost()
        self.sent.clear()

    def says(self, **message: Any) -> None:
        self.core.read(json.dumps(message, separators=(",", ":")).encode())

    def ack(self, epoch: str = "k", seq: int = 0) -> dict[str, Any]:
        """Takes the next command that was sent, and acknowledges it."""
        command = next(command for command in self.sent if command["op"] in ("sub", "unsub"))
        self.sent.remove(command)
        names = [{"topic": name, "mode": "all", **({} if "*" in name else {"epoch": epoch, "seq": seq})} for name in command["topics"]]
        self.says(type="ack", id=command["id"], **({"topics": names} if command["op"] == "sub" else {}))
        return command

    def pong(self) -> None:
        for command in [command for command in self.sent if command["op"] == "ping"]:
            self.sent.remove(command)
            self.says(type="pong", id=command["id"], ts=1)

    def update(self, topic: str, seq: int, **more: Any) -> None:
        self.says(type="update", topic=topic, **more, seq=seq, ts=1, data=seq)

    def snapshot(self, topic: str, seq: int, epoch: str = "k") -> None:
        self.says(type="snapshot", topic=topic, epoch=epoch, seq=seq, ts=1, data=seq)

    def news(self) -> list[Any]:
        told, self.told[:] = [(event.topic, event.seq) if isinstance(event, Update) else event for event in self.told], []
        return [event for event in told if not (isinstance(event, Status) and event.code == "connected")]


def subscribed(*names: str, **options: Any) -> World:
    world = World(**options)
    world.hello()
    world.core.subscribe(names, "all", None, True, None)
    world.ack("k", 4)
    world.pong()
    return world


def test_a_name_that_is_refused_takes_none_of_another_call_with_it() -> None:
    world = World()
    for name in ("a", "b", "c"):
        world.core.subscribe([name], "all", None, True, None)
    world.hello()
    refused = next(command for command in world.sent if command["op"] == "sub")
    assert refused["topics"] == ["a", "b", "c"]
    with pytest.raises(Broken, match="forbidden"):
        world.says(type="error", id=refused["id"], code="forbidden", message="b")
    world.lost()
    world.hello()
    first, second, third = [command for command in world.sent if command["op"] == "sub"]
    assert [first["topics"], second["topics"], third["topics"]] == [["a"], ["b"], ["c"]]
    world.ack("k", 4)
    world.sent.remove(second)
    world.says(type="error", id=second["id"], code="forbidden", message="b")
    world.ack("k", 7)
    world.news()
    world.update("a", 5)
    world.update("c", 8)
    assert world.news() == [("a", 5), ("c", 8)]
    assert list(world.core.topics.wants) == ["a", "c"]


def test_a_payload_is_the_text_that_was_published_wherever_it_stands() -> None:
    assert payload(b'{"type":"update","note":{"data":[1,"\\"data\\":2"]},"kind":"data","data" : 0.10 }') == b"0.10"
    assert payload(b'{"data":{"}":"{"},"type":"update"}') == b'{"}":"{"}'
    assert payload('{"topic":"a","data":"grüße"}'.encode()) == '"grüße"'.encode()


def test_topics_that_have_keyframes_are_known() -> None:
    world = subscribed("a", "b", "c")
    world.update("a", 5)
    world.update("b", 5, key=True)
    world.says(type="snapshot", topic="c", epoch="k", seq=5, ts=1, key=True, data=1)
    assert world.core.topics.keyed == {"b", "c"}
    # Its last keyframe comes again, and what followed it, for who asks again.
    world.says(type="update", topic="c", seq=6, ts=1, data=1)
    world.news()
    world.says(type="snapshot", topic="c", epoch="k", seq=5, ts=1, key=True, data=1)
    world.update("c", 6)
    assert world.news() == [("c", 5), ("c", 6)]


def test_numbers_with_a_point_become_what_one_wants() -> None:
    world = World(loads=loads_of(Decimal))
    world.hello()
    world.core.subscribe(["a"], "all", None, True, None)
    world.ack("k", 0)
    world.core.read(b'{"type":"update","topic":"a","seq":1,"ts":1,"data":{"px":100.10,"id":8389766145050669870}}')
    event = world.told[-1]
    assert isinstance(event, Update)
    assert event.raw == b'{"px":100.10,"id":8389766145050669870}'
    assert event.data == {"px": Decimal("100.10"), "id": 8389766145050669870} and str(event.data["px"]) == "100.10"
    assert event.data is event.data


def test_what_was_published_as_bytes_is_bytes() -> None:
    world = subscribed("a")
    world.says(type="update", topic="a", seq=5, ts=1, base64="AP8B")
    event = world.told[-1]
    assert isinstance(event, Update) and event.is_binary and event.data == event.raw == bytes([0, 255, 1])


def test_a_first_publication_says_in_which_epoch_its_topic_has_begun() -> None:
    world = subscribed("p.*")
    world.update("p.a", 1, epoch="k1")
    world.update("p.a", 2)
    told = list(world.told)
    assert world.news() == [("p.a", 1), ("p.a", 2)]
    assert all(isinstance(event, Status) or (isinstance(event, Update) and event.epoch == "k1") for event in told)
    # It was forgotten, and is published on again.
    world.update("p.a", 1, epoch="k2")
    assert world.news() == [Reset("p.a", "k2", 0, "epoch"), ("p.a", 1)]


def test_what_stands_in_the_place_of_several_publications_is_no_gap_that_must_not_be() -> None:
    world = subscribed("a", "b")
    world.update("a", 5)
    world.says(type="skip", topic="a", **{"from": 6}, to=9, why="too_large")
    world.update("a", 10)
    assert world.news() == [("a", 5), Gap("a", 6, 9, "too_large"), ("a", 10)]
    # In the place of a last value, of which a part was had.
    world.core.subscribe(["a"], "latest", None, True, None)
    world.ack("k", 10)
    world.lost()
    world.hello()
    world.ack("k", 14)
    world.says(type="skip", topic="a", epoch="k", **{"from": 9}, to=14, why="too_large")
    world.ack("k", 9)
    world.says(type="skip", topic="b", epoch="k", **{"from": 7}, to=9, why="too_large")
    assert world.news() == [Gap("a", 11, 14, "too_large"), Gap("b", 7, 9, "too_large")]


def test_a_pattern_has_as_many_topics_resumed_as_there_is_room_and_the_others_tell_what_is_missing() -> None:
    world = subscribed("p.*")
    for n in range(100):
        world.snapshot(f"p.{n}", 5)
    world.news()
    world.lost()
    world.hello(topics=10, message=512)
    assert all(len(json.dumps(command)) <= 512 for command in world.sent)
    resumed: list[str] = []
    while any(command["op"] == "sub" for command in world.sent):
        resumed += world.ack("k", 7).get("from", {})
    assert len(resumed) == 9
    world.update(resumed[0], 6)
    world.snapshot("p.99", 8)
    assert world.news() == [(resumed[0], 6), Gap("p.99", 6, 7, "reconnect"), ("p.99", 8)]
    assert [name for command in world.sent if command["op"] == "unsub" for name in command["topics"]] == resumed


def test_two_subscriptions_share_the_room_that_there_is_to_name_topics() -> None:
    world = World()
    world.hello(topics=10)
    for snapshot, name in ((True, "p.*"), (False, "q.*")):
        world.core.subscribe([name], "all", None, snapshot, None)
        world.ack()
    for n in range(6):
        world.update(f"p.{n}", 1, epoch="k")
        world.update(f"q.{n}", 1, epoch="k")
    world.lost()
    world.hello(topics=10)
    named = [name for command in world.sent if command["op"] == "sub" for name in command["topics"]]
    assert len(named) == len(set(named)) == 10


def test_topics_are_not_taken_for_new_when_the_last_values_were_cut_short() -> None:
    world = World()
    world.hello()
    world.core.subscribe(["p.*"], "all", None, True, None)
    world.ack()
    world.snapshot("p.a", 5)
    world.lost()
    world.hello()
    world.ack("k", 5)
    world.snapshot("p.b", 5)
    world.pong()
    assert world.news() == [("p.a", 5), ("p.b", 5)]
    world.lost()
    world.hello()
    world.ack("k", 5)
    world.snapshot("p.c", 5)
    assert world.news() == [Gap("p.c", 1, 4, "reconnect"), ("p.c", 5)]


def test_what_nobody_knows_to_go_on_is_a_reset() -> None:
    world = World()
    world.hello()
    world.core.subscribe(["p.*"], "all", None, False, None)
    world.ack()
    world.pong()
    for seq in (7, 8):
        world.update("p.a", seq)  # Its epoch was never told.
    assert world.news() == [("p.a", 7), ("p.a", 8)]
    world.lost()
    world.hello()
    world.ack()
    world.update("p.a", 20)
    assert world.news() == [Reset("p.a", None, 19, "reconnect"), ("p.a", 20)]


def test_no_more_topics_are_remembered_than_may_be_and_all_are_told() -> None:
    world = subscribed("p.*", topics_max=10)
    for n in range(100):
        world.snapshot(f"p.{n}", 5)
        world.update(f"p.{n}", 6)
    assert len(world.news()) == 200
    assert len(world.core.topics.places) == 10


def test_a_gap_that_is_there_on_the_next_connection_too_is_told_and_it_goes_on() -> None:
    world = subscribed("a")
    world.update("a", 5)
    world.says(type="heartbeat", ts=1, cursor="C1")
    with pytest.raises(Broken):
        world.update("a", 8)
    world.lost()
    world.hello()
    # Not from a cursor: it may be behind what is missing.
    assert world.ack("k", 8)["from"] == {"a": ["k", 5]}
    world.update("a", 8)
    world.update("a", 9)
    assert [event for event in world.news() if not isinstance(event, (Status, Mark))] == [("a", 5), Gap("a", 6, 7, "missing"), ("a", 8), ("a", 9)]


def test_a_name_gets_another_mode_and_keeps_its_old_one_if_that_is_refused() -> None:
    world = subscribed("a")
    world.core.subscribe(["a"], "latest", 4, True, None)
    assert world.sent[0]["mode"] == "latest" and world.sent[0]["rate"] == 4
    world.says(type="error", id=world.sent[0]["id"], code="too_many_rates", message="no")
    (error,) = world.news()
    assert (error.code, error.names) == ("too_many_rates", ("a",))
    assert world.core.topics.wants["a"].mode == "all"
    with pytest.raises(Broken):
        world.update("a", 9)


def test_what_was_on_its_way_when_one_left_is_not_told() -> None:
    world = subscribed("a", "b")
    world.core.unsubscribe(["a"])
    world.update("a", 5)
    world.update("b", 5)
    assert world.news() == [("b", 5)]


@pytest.mark.parametrize("text", [b"<html>", b"[]", b"7", b'{"no":"type"}', b'{"type":"update"}', b'{"type":"skip","topic":"a"}', b"\xff\xfe", b"[" * 100_000])
def test_what_is_no_message_ends_the_connection_and_nothing_else(text: bytes) -> None:
    world = subscribed("a")
    with pytest.raises(Broken):
        world.core.read(text)


def test_a_publication_that_could_not_be_read_is_answered_though_the_error_has_no_id() -> None:
    world = subscribed("a")
    errors: list[Any] = []
    world.core.publish("a", b"{", lambda receipt, error: errors.append(error))
    world.says(type="error", code="bad_json", message="no")
    world.core.publish("a", b"1" * 100_000, lambda receipt, error: errors.append(error))
    assert [error.code for error in errors] == ["bad_json", "too_large"]


def test_a_cursor_is_good_behind_the_last_values_of_all_names_and_is_told_in_its_place() -> None:
    world = subscribed("a")
    world.says(type="heartbeat", ts=1, cursor="C1")
    world.core.subscribe(["p.*"], "all", None, True, None)
    world.says(type="heartbeat", ts=1, cursor="C2")
    world.ack()
    world.snapshot("p.a", 3)
    world.says(type="heartbeat", ts=1, cursor="C3")
    world.pong()
    world.update("a", 5)
    world.says(type="heartbeat", ts=1, cursor="C4")
    assert world.news() == [Mark("C1"), ("p.a", 3), ("a", 5), Mark("C4")]
    world.core.subscribe(["late.*"], "all", None, True, None)
    world.ack()
    world.lost()
    world.hello()
    # Whose last values may not have come, begins with them.
    assert {name: command.get("from") for command in world.sent if command["op"] == "sub" for name in command["topics"]} == {
        "a": "C4",
        "p.*": "C4",
        "late.*": None,
    }


def test_what_json_cannot_say_is_not_published() -> None:
    with pytest.raises(ValueError):
        dumps(float("nan"))


def _loads(text: bytes) -> dict[str, Any]:
    try:
        return dict(json.loads(text))
    except ValueError:
        return {"op": "pub"}  # As broken as the test wants it.
