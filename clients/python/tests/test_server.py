"""The client with a real server, real restarts, and a link that is cut and stalled."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import stentor.aio
from stentor import Client, Event, Gap, Reset, StentorError, Status, Update, connect
from world import Book, Link, Server

SOON = (0.01, 0.05)


def until(md: Client, found: Callable[[Event], bool], book: Book | None = None) -> list[Event]:
    """What is told until there is what was waited for."""
    events: list[Event] = []
    for event in md:
        events.append(event)
        if book is not None:
            book.take(event)
        if found(event):
            break
    return events


def value(topic: str, data: Any) -> Callable[[Event], bool]:
    return lambda event: isinstance(event, Update) and event.topic == topic and event.data == data


def test_a_subscription_begins_with_the_last_value_and_goes_on(server: Server) -> None:
    server.publish("q.a", {"px": 1})
    with connect(server.url) as md:
        md.subscribe("q.*")
        first = until(md, lambda event: isinstance(event, Update))[-1]
        assert isinstance(first, Update)
        assert (first.topic, first.seq, first.data, first.is_snapshot) == ("q.a", 1, {"px": 1}, True)
        receipt = md.publish("q.a", raw='{"px": 2.50}').result()
        assert (receipt.topic, receipt.seq) == ("q.a", 2)
        second = md.receive()
        assert isinstance(second, Update)
        assert (second.seq, second.raw, second.ts, second.epoch) == (2, b'{"px": 2.50}', receipt.ts, first.epoch)


def test_a_snapshot_is_complete_whatever_is_subscribed_to(server: Server) -> None:
    server.publish_many([(f"q.{n}", n) for n in range(3000)])
    with connect(server.url) as md:
        md.subscribe("q.7", mode="latest", rate=0.1)
        assert md.snapshot("q.*") == {f"q.{n}": n for n in range(3000)}
        assert md.snapshot("nothing.here") == {}
        with pytest.raises(StentorError, match="bad_topic"):
            md.snapshot("a..b")
        assert [name for name in md.subscriptions] == ["q.7"]


def test_refusals_are_raised_and_leave_the_rest_as_it_was(server: Server) -> None:
    with connect(server.url) as md:
        md.subscribe("b")
        md.subscribe("a..b")
        with pytest.raises(StentorError) as refused:
            until(md, lambda event: False)
        assert (refused.value.code, refused.value.names) == ("bad_topic", ("a..b",))
        with pytest.raises(StentorError, match="bad_topic"):
            md.publish("a..b", 1).result()
        md.publish("b", 1)
        until(md, value("b", 1))


def test_who_is_not_there_is_unreachable_and_what_is_no_server_refuses() -> None:
    with pytest.raises(StentorError) as error:
        connect("ws://127.0.0.1:1/ws", timeout=0.2)
    assert error.value.code == "unreachable" and "127.0.0.1:1" in str(error.value)
    with pytest.raises(StentorError) as error:
        connect("tcp://127.0.0.1:1")
    assert error.value.code == "bad_address"


def test_a_handshake_that_is_refused_says_why(server: Server) -> None:
    with pytest.raises(StentorError) as error:
        connect(f"{server.url}?topics=a..b")
    assert error.value.code == "refused" and "400" in str(error.value) and "a..b" in str(error.value)


def test_after_a_loss_nothing_is_missing_and_nothing_comes_twice(server: Server) -> None:
    book = Book()
    with Link(server.port) as link, connect(link.url, backoff=SOON) as md:
        md.subscribe(["t.*", "u"])
        md.ping()
        for n in range(1, 4):
            server.publish("t.a", n)
        until(md, value("t.a", 3), book)
        link.cut()
        for n in range(4, 40):
            server.publish("t.a", n)
        server.publish("u", 40)
        until(md, value("u", 40), book)
        assert [seq for topic, seq in book.seen if topic == "t.a"] == list(range(1, 40))
        assert not book.gaps and not book.resets


def test_a_restart_is_a_reset_and_never_a_gap() -> None:
    book = Book()
    with Server() as first, connect(first.url, backoff=SOON) as md:
        md.subscribe("q.*")
        md.subscribe("l.*", mode="latest")
        first.publish_many([("q.a", 1), ("q.gone", 1), ("l.a", 1), ("l.gone", 1)] * 5)
        while [seq for _, seq in book.seen].count(5) < 4:
            book.take(md.receive())
        first.end()
        with Server(port=first.port) as second:
            second.publish_many([("q.a", n) for n in range(10)] + [("l.a", 3), ("end", 1)])
            md.subscribe("end")
            until(md, value("end", 1), book)
            md.ping()
            for event in md.pending():
                book.take(event)
            assert book.values == {"q.a": 9, "l.a": 3, "end": 1}
            assert {reset.topic for reset in book.resets} == {"q.a", "q.gone", "l.a", "l.gone"}
            assert not book.gaps


def test_who_is_sent_away_is_told_and_comes_back() -> None:
    with Server("--drain-timeout", "200ms") as first, connect(first.url, backoff=SOON) as md:
        first.end(signal.SIGTERM)
        with Server(port=first.port):
            codes = [event.code for event in until(md, lambda event: isinstance(event, Status) and event.code == "connected") if isinstance(event, Status)]
            codes += [event.code for event in until(md, lambda event: isinstance(event, Status) and event.code == "connected") if isinstance(event, Status)]
    assert codes == ["connected", "draining", "lost", "connected"]


def test_a_link_that_falls_silent_is_given_up() -> None:
    with Server("--heartbeat", "1s") as server, Link(server.port) as link, connect(link.url, backoff=SOON) as md:
        md.subscribe("a")
        md.ping()
        link.stall()
        lost = until(md, lambda event: isinstance(event, Status) and event.code == "lost")[-1]
        assert isinstance(lost, Status) and "nothing was heard" in lost.message
        link.flow()
        server.publish("a", 1)
        until(md, value("a", 1))


def test_the_next_address_is_tried(server: Server) -> None:
    with Server() as other, connect([server.url, other.url], backoff=SOON) as md:
        md.subscribe("a")
        server.publish("a", 1)
        until(md, value("a", 1))
        server.end()
        other.publish("a", 2)
        events = until(md, value("a", 2))
        [reset] = [event for event in events if isinstance(event, (Gap, Reset))]
        # By what it asks to go on: a cursor, if it had been told one by then.
        assert isinstance(reset, Reset) and (reset.topic, reset.seq) == ("a", 1) and reset.why in ("cursor", "epoch")
        assert isinstance(events[-1], Update) and reset.epoch == events[-1].epoch


def test_who_lags_comes_back_and_is_told_what_is_gone() -> None:
    """In mode `all` with a program that is slow: it leaves the socket alone, and the server ends the connection."""
    with Server("--retain", "2MiB", "--lag-limit", "512KiB") as server, connect(server.url, buffer_bytes=200_000, backoff=SOON) as md:
        md.subscribe("t.*")
        md.ping()
        filler = "x" * 1000
        for _ in range(90):
            server.publish_many([("t.a", filler)] * 200)
        server.publish("t.a", "last")
        book = Book()
        events = until(md, value("t.a", "last"), book)
        assert any(isinstance(event, Status) and event.code == "lost" and "4100" in event.message for event in events)
        assert [reset.why for reset in book.resets] and not book.gaps


@pytest.mark.parametrize("when_slow", ["latest", "error"])
def test_a_program_that_is_slow_holds_no_more_than_it_wants_to(server: Server, when_slow: Any) -> None:
    with connect(server.url, buffer_bytes=100_000, when_slow=when_slow) as md:
        md.subscribe("t.*")
        md.ping()
        for _ in range(20):
            server.publish_many([(f"t.{n}", "x" * 500) for n in range(50)])
        server.publish("t.0", "last")
        if when_slow == "error":
            with pytest.raises(StentorError, match="too_slow"):
                until(md, lambda event: False)
            return
        book = Book()
        until(md, value("t.0", "last"), book)
        assert book.gaps and {gap.why for gap in book.gaps} == {"slow"}
        assert len(book.values) == 50


@pytest.mark.parametrize("compression", [False, True])
def test_a_program_that_waits_has_the_server_wait_too(server: Server, compression: bool) -> None:
    with connect(server.url, buffer_bytes=100_000, compression=compression) as md, connect(server.url, compression=compression) as other:
        md.subscribe("t.*", mode="latest")
        other.subscribe("t.*", mode="latest")
        md.ping()
        for _ in range(40):
            server.publish_many([(f"t.{n}", "x" * 500) for n in range(1000)])
        server.publish("t.last", 1)
        until(other, value("t.last", 1))
        while not md._inbox.is_full:  # Its thread may not have had its turn.
            time.sleep(0.01)
        # A batch of messages beyond, however much a read of the socket was, and comes to, inflated.
        assert md._inbox.bytes < 200_000
        until(md, value("t.last", 1))
        assert md._inbox.bytes < 200_000


def test_newest_values_at_a_rate(server: Server) -> None:
    with connect(server.url) as md:
        md.subscribe("t.a", mode="latest", rate=5)
        md.ping()
        server.publish_many([("t.a", n) for n in range(100)])
        events = until(md, value("t.a", 99))
        assert len([event for event in events if isinstance(event, Update)]) < 50
        agreed = md.subscriptions["t.a"]
        assert agreed is not None and (agreed.mode, agreed.rate) == ("latest", 5)


def test_it_begins_where_one_was_on_another_day(server: Server) -> None:
    for n in range(1, 6):
        server.publish("t.a", n)
    with connect(server.url) as md:
        md.subscribe("t.a")
        last = until(md, value("t.a", 5))[-1]
    assert isinstance(last, Update) and last.epoch is not None
    with connect(server.url) as md:
        md.subscribe("t.a", start={"t.a": (last.epoch, 2)})
        assert [event.seq for event in until(md, value("t.a", 5)) if isinstance(event, Update)] == [3, 4, 5]


def test_a_token_is_shown_and_a_wrong_one_ends_it() -> None:
    with Server("--publish-token", "secret") as server:
        with connect(server.url, token=lambda: "secret") as md:
            assert md.publish("a", 1).result().seq == 1
        with connect(server.url) as md, pytest.raises(StentorError, match="forbidden"):
            md.publish("a", 1).result()
        with pytest.raises(StentorError, match="unauthorized"), connect(server.url, token="wrong") as md:
            until(md, lambda event: False)


def test_over_tls_a_certificate_is_checked(tmp_path: Path) -> None:
    with Server("--tls-listen", "127.0.0.1:0", "--tls-self-signed", str(tmp_path)) as server:
        url = f"https://localhost:{server.secure_port}"
        with pytest.raises(StentorError, match="unreachable.*certificate"):
            connect(url, timeout=0.3)
        with connect(url, tls=ssl.create_default_context(cafile=tmp_path / "certificate.pem")) as md:
            md.subscribe("a")
            md.publish("a", "x" * 50_000)
            until(md, value("a", "x" * 50_000))


def test_ctrl_c_ends_a_program_at_once_and_says_nothing_but_that(server: Server) -> None:
    program = f"import signal, stentor\nsignal.signal(signal.SIGINT, signal.default_int_handler)\nwith stentor.connect({server.url!r}) as md:\n  md.subscribe('a')\n  for event in md: print(event, flush=True)\n"
    path = os.pathsep.join(filter(None, [str(Path(__file__).parents[1] / "src"), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-c", program]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path})
    assert process.stdout is not None
    server.publish("a", "there")
    assert any("there" in line for line in process.stdout)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=10)
    assert said.splitlines()[-1] == "KeyboardInterrupt" and said.count("Traceback") == 1


def test_publications_wait_for_room_and_for_a_connection(server: Server) -> None:
    with Link(server.port) as link, connect(link.url, publishes_max=3, backoff=SOON) as md:
        link.stall()
        futures = [md.publish("a", n) for n in range(3)]
        with pytest.raises(TimeoutError, match="3 publications"):
            md.publish("a", 3, timeout=0.05)
        link.flow()
        assert [future.result().seq for future in futures] == [1, 2, 3]
        server.end()
        until(md, lambda event: isinstance(event, Status) and event.code == "lost")
        with pytest.raises(TimeoutError, match="no connection"):
            md.publish("a", 3, timeout=0.05)
        assert link.port


def test_a_publication_whose_answer_is_lost_is_told_so(server: Server) -> None:
    with Link(server.port) as link, connect(link.url, backoff=SOON) as md:
        md.ping()
        link.stall()
        future = md.publish("a", 1)
        link.cut()
        with pytest.raises(StentorError, match="disconnected"):
            future.result()


def test_what_was_published_before_closing_is_published(server: Server) -> None:
    with connect(server.url) as md:
        for n in range(500):
            md.publish("a", n)
    assert server.values() == {"a": 499}


def test_closing_does_not_wait_for_a_server_that_takes_nothing(server: Server) -> None:
    with Link(server.port) as link, connect(link.url) as md:
        link.stall()
        futures = [md.publish("a", raw='"' + "x" * 60_000 + '"') for _ in range(300)]
        md.close()
        assert {type(future.exception(timeout=0)) for future in futures} == {StentorError}


def test_a_closed_client_ends_the_loop_and_refuses(server: Server) -> None:
    md = connect(server.url)
    threading.Timer(0.05, md.close).start()
    assert [event.code for event in md if isinstance(event, Status)] == ["connected"]
    for use in (lambda: md.subscribe("a"), lambda: md.publish("a", 1), lambda: md.snapshot("a"), md.receive):
        with pytest.raises(StentorError, match="closed"):
            use()
    md.close()


def test_closing_ends_what_other_threads_wait_for(server: Server) -> None:
    with Link(server.port) as link:
        md = connect(link.url)
        link.stall()
        failed: list[str] = []

        def wait_for(what: Callable[[], object]) -> None:
            try:
                what()
            except StentorError as error:
                failed.append(error.code)

        uses: list[Callable[[], object]] = [lambda: md.snapshot("q.>", timeout=None), lambda: md.ping(timeout=None)]
        threads = [threading.Thread(target=wait_for, args=(use,), daemon=True) for use in uses]
        for thread in threads:
            thread.start()
        while len(asyncio.all_tasks(md._loop)) < 4:
            time.sleep(0.001)  # That a task has begun is told to nobody else.
        md.close()
        for thread in threads:
            thread.join(10)
        assert not any(thread.is_alive() for thread in threads)
        assert set(failed) <= {"closed", "disconnected"} and len(failed) == 2


def test_what_has_come_is_there_without_waiting(server: Server) -> None:
    with connect(server.url) as md:
        assert all(isinstance(event, Status) for event in md.pending())
        with pytest.raises(TimeoutError):
            md.receive(timeout=0)
        md.subscribe("a")
        md.publish("a", 1).result()
        md.ping()
        assert [event.data for event in md.pending() if isinstance(event, Update)] == [1]


def test_asyncio_has_what_has_come_however_short_the_time(server: Server) -> None:
    async def program() -> None:
        async with stentor.aio.connect(server.url) as md:
            md.subscribe("a")
            await (await md.publish("a", 1))
            await md.ping()
            while not isinstance(event := await md.receive(timeout=0), Update):
                pass
            assert event.data == 1
            with pytest.raises(TimeoutError):
                await md.receive(timeout=0)

    asyncio.run(program())


def test_the_client_for_asyncio_does_the_same(server: Server) -> None:
    async def program() -> None:
        server.publish("q.a", 1)
        async with stentor.aio.connect(server.url) as md:
            md.subscribe("q.*")
            answer = await md.publish("q.a", 2)
            assert (await answer).seq == 2
            seen: list[int] = []
            async for event in md:
                if isinstance(event, Update):
                    seen.append(event.seq)
                    if event.seq == 2:
                        break
            assert seen == [1, 2]
            assert await md.snapshot("q.*") == {"q.a": 2}
            assert await md.ping() > 0
            with pytest.raises(TimeoutError):
                await md.receive(timeout=0.01)
            md.subscribe("a..b")
            with pytest.raises(StentorError, match="bad_topic"):
                await md.receive()
            with pytest.raises(StentorError, match="bad_topic"):
                await (await md.publish("a..b", 1))
            reader = asyncio.ensure_future(md.receive())
            await asyncio.sleep(0)
            await md.close()
            with pytest.raises(StentorError, match="closed"):
                await reader
            assert [event async for event in md] == []

    asyncio.run(program())


@pytest.mark.parametrize("seed", range(int(os.environ.get("SEEDS", "6"))))
def test_after_any_faults_the_book_is_the_publishers(seed: int) -> None:
    """Cuts, stalls, restarts, bursts that make a slow reader lag; in the end what a program has made of the events is what the server has."""
    chance = random.Random(seed)
    server = Server("--retain", "1MiB", "--lag-limit", "256KiB")
    mode: Any = chance.choice(["all", "all", "latest"])
    topics = [f"t.{n}" for n in range(chance.choice([3, 40]))]
    book = Book(is_gapless=mode == "all")
    counted = 0

    def publish() -> None:
        nonlocal counted
        for _ in range(chance.randint(1, 10)):
            counted += 1
            server.publish(chance.choice(topics), counted)

    with (
        Link(server.port) as link,
        connect(link.url, buffer_bytes=chance.choice([20_000, 2**20]), when_slow=chance.choice(["wait", "latest"]), backoff=SOON) as md,
    ):
        md.subscribe("t.*", mode=mode)
        md.subscribe("end", mode=mode)
        for _ in range(25):
            match chance.choice(["publish", "publish", "read", "read", "cut", "stall", "restart", "burst"]):
                case "publish":
                    publish()
                case "burst":
                    server.publish_many([(chance.choice(topics), "x" * 900) for _ in range(1500)])
                case "read":
                    for event in md.pending():
                        book.take(event)
                case "cut":
                    link.cut()
                case "stall":
                    link.stall()
                    publish()
                    if chance.random() < 0.5:
                        link.cut()
                    link.flow()
                case "restart" if chance.random() < 0.5:
                    port = server.port
                    server.end()
                    server = Server("--retain", "1MiB", "--lag-limit", "256KiB", port=port)
                case _:
                    pass
        server.publish_many([(topic, f"{topic} {seed}") for topic in topics[: len(topics) // 2 + 1]])
        server.publish("end", seed)
        while book.values.get("end") != seed:
            book.take(md.receive())
        # The last values of a connection that was made meanwhile come before this answer.
        md.ping()
        for event in md.pending():
            book.take(event)
        expected = server.values()
        server.end()
    assert book.values == expected
