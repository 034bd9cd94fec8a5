"""Bytes into messages, whatever the pieces are in which they come."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any, cast

import pytest
from stentor._wire import Refused, Wire
from websockets.client import ClientProtocol
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory, ServerPerMessageDeflateFactory
from websockets.frames import Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol
from websockets.uri import parse_uri


class Pipe(asyncio.Transport):
    """What the client writes."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.is_aborted = False

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        self.written += data

    def can_write_eof(self) -> bool:
        return False

    def is_closing(self) -> bool:
        return self.is_aborted

    def abort(self) -> None:
        self.is_aborted = True


class World:
    """A wire, and a server's end of it that is the library's."""

    def __init__(self, compression: bool = False, message_max: int = 1 << 20) -> None:
        self.messages: list[bytes] = []
        self.pipe = Pipe()
        protocol = ClientProtocol(
            parse_uri("ws://test/ws"), extensions=[ClientPerMessageDeflateFactory()] if compression else None, max_size=message_max
        )
        protocol.send_request(protocol.connect())
        self.protocol = protocol
        self.wire = Wire(protocol, message_max, lambda wire: None, lambda message: self.messages.append(bytes(message)), lambda: None)
        self.wire.connection_made(self.pipe)
        self.server = ServerProtocol(extensions=[ServerPerMessageDeflateFactory()] if compression else None)
        self.server.receive_data(bytes(self.pipe.written))
        request = cast(Request, self.server.events_received()[0])
        self.server.send_response(self.server.accept(request))

    def bytes(self) -> bytes:
        return b"".join(self.server.data_to_send())


def in_pieces(wire: Wire, data: bytes, chance: random.Random) -> None:
    while data:
        size = chance.choice([1, 2, 3, 7, 100, 5000, 70_000])
        wire.data_received(data[:size])
        data = data[size:]


def on_a_loop(test: Callable[[], None]) -> None:
    async def run() -> None:
        test()

    asyncio.run(run())


@pytest.mark.parametrize("compression", [False, True])
@pytest.mark.parametrize("seed", range(10))
def test_any_pieces_make_the_same_messages(seed: int, compression: bool) -> None:
    def test() -> None:
        chance = random.Random(seed)
        world = World(compression)
        sent: list[bytes] = []
        for _ in range(60):
            text = b"x" * chance.choice([0, 1, 125, 126, 127, 300, 65_535, 65_536, 70_000])
            match chance.choice(["whole", "whole", "parts", "ping"]):
                case "whole":
                    world.server.send_text(text)
                    sent.append(text)
                case "parts":
                    world.server.send_text(text, fin=False)
                    world.server.send_ping(b"between")
                    world.server.send_continuation(text, fin=False)
                    world.server.send_continuation(b"end", fin=True)
                    sent.append(text + text + b"end")
                case _:
                    world.server.send_ping(b"p")
        in_pieces(world.wire, world.bytes(), chance)
        assert world.wire.opened.done() and [len(message) for message in world.messages] == [len(text) for text in sent]
        assert world.messages == sent
        # Each ping was answered.
        world.pipe.written = world.pipe.written[world.pipe.written.index(b"\r\n\r\n") + 4 :]
        world.server.receive_data(bytes(world.pipe.written))
        assert all(getattr(event, "opcode", None) is Opcode.PONG for event in world.server.events_received())

    on_a_loop(test)


def test_nothing_behind_a_goodbye_is_read() -> None:
    def test() -> None:
        world = World()
        world.server.send_text(b"before")
        world.server.send_close(4100, "lagged")
        world.wire.data_received(world.bytes() + b"\x81\x05after")
        world.wire.connection_lost(None)
        assert world.messages == [b"before"]
        assert world.wire.closed.result() == (4100, "lagged")

    on_a_loop(test)


@pytest.mark.parametrize(
    "frames",
    [b"\x81\x7f\x00\x00\x00\x00\x7f\xff\xff\xff", b"\x01\x7e\xff\xff" + b"x" * 65_535 + b"\x00\x7e\xff\xff" + b"x" * 65_535, b"\xf1\x01x", b"\x81\x81mask!", b"\x83\x00", b"\x01\x01a\x81\x01b"],
    ids=["a message too large", "fragments too large", "reserved bits", "masked", "no such opcode", "a message within another"],
)
def test_what_breaks_the_rules_is_refused_and_never_read(frames: bytes) -> None:
    def test() -> None:
        world = World(message_max=100_000)
        world.wire.data_received(world.bytes() + frames + b"\x81\x02ok")
        assert world.messages == []
        assert world.protocol.close_sent is not None and world.protocol.close_sent.code in (1002, 1009)

    on_a_loop(test)


def test_a_refusal_says_its_status_and_sentence_in_any_pieces() -> None:
    def test() -> None:
        world = World()
        answer = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 18\r\nRetry-After: 7\r\n\r\nThere is no room.\n"
        for byte in answer:
            world.wire.data_received(bytes([byte]))
        error = world.wire.opened.exception()
        assert isinstance(error, Refused)
        assert (error.status, str(error), error.retry_after) == (503, "503: There is no room.", 7)

    on_a_loop(test)
