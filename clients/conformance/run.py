#!/usr/bin/env python3
"""Plays a server's part to a client, as scenarios.json has it, and holds what the client says and tells against that. See README.md.

    run.py [--only NAME] [--without ABILITY] DRIVER…       a line for each scenario; fails if one does
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import http
import json
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.extensions import Extension
from websockets.extensions.permessage_deflate import PerMessageDeflate, ServerPerMessageDeflateFactory
from websockets.frames import CTRL_OPCODES, Frame
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

#: Seconds after which a scenario has failed.
PATIENCE = 20.0

#: What a server says at first, unless the scenario says otherwise.
HELLO = {"type": "hello", "version": 1, "server": "a script", "conn": "1", "ts": 1, "heartbeat": 0, "limits": {"topics": 1024, "message": 65536}}


class Failed(Exception):
    """A client did otherwise."""


class Stream(PerMessageDeflate):
    """Compression as servers do it that share a stream among many: with a window of 12 bits that nobody was told of, kept from message to message, begun anew by a full flush
    now and then, and messages between that are not compressed and leave it alone."""

    #: What is sent now belongs to the stream.
    is_on = False
    #: The stream begins anew behind the next message.
    ends = False

    def __init__(self, *how: Any) -> None:
        super().__init__(*how)
        self.window = zlib.compressobj(wbits=-12)

    def encode(self, frame: Frame) -> Frame:
        # Who has agreed to a smaller window can't be sent this one.
        if frame.opcode in CTRL_OPCODES or not self.is_on or self.local_max_window_bits < 12:
            return frame
        if self.local_no_context_takeover:
            self.window = zlib.compressobj(wbits=-12)
        data = self.window.compress(frame.data) + self.window.flush(zlib.Z_FULL_FLUSH if self.ends else zlib.Z_SYNC_FLUSH)
        assert data.endswith(b"\x00\x00\xff\xff")  # RFC 7692, section 7.2.1: it is left away.
        self.ends = False
        return dataclasses.replace(frame, data=data[:-4], rsv1=True)


class StreamFactory(ServerPerMessageDeflateFactory):
    """Agrees to a `Stream`."""

    def process_request_params(self, params: Sequence[tuple[str, str | None]], accepted_extensions: Sequence[Extension]) -> tuple[list[tuple[str, str | None]], PerMessageDeflate]:
        answer, agreed = super().process_request_params(params, accepted_extensions)
        how = (agreed.remote_no_context_takeover, agreed.local_no_context_takeover, agreed.remote_max_window_bits, agreed.local_max_window_bits)
        return list(answer), Stream(*how)


def levels(seq: int) -> dict[str, Any]:
    """What is published as number `seq`, where a script has many numbers: alike from one to the next, and too long for a window of 12 bits to hold two of them."""
    return {"seq": seq, "bids": [[round(100 - n * 0.01 + seq % 7 * 0.01, 2), (n * 37 + seq * 11) % 900] for n in range(150)], "text": f"\u00e9 {seq}"}


def spread(line: dict[str, Any]) -> list[dict[str, Any]]:
    """A line about many numbers, as so many lines."""
    if "to" not in line or "update" not in line:
        return [line]
    return [{"update": line["update"], "seq": seq, "data": levels(seq)} for seq in range(line["from"], line["to"] + 1)]


class Play:
    """One scenario with one client."""

    def __init__(self, scenario: dict[str, Any]) -> None:
        self.scenario = {**scenario, "told": [one for line in scenario["told"] for one in spread(line)]}
        #: What is to be known of it beside whether it passed.
        self.note = ""
        self.loop = asyncio.get_running_loop()
        self.done: asyncio.Future[None] = self.loop.create_future()
        self.began = 0
        self.ended_at = 0.0
        self.ids: dict[str, Any] = {}
        self.told: list[dict[str, Any]] = []
        self.news = asyncio.Event()

    async def listen(self) -> Server:
        compression = self.scenario.get("compression")
        return await serve(
            self.meet,
            "127.0.0.1",
            0,
            compression="deflate" if compression is True else None,
            extensions=[StreamFactory()] if compression == "stream" else None,
            process_request=self.judge,
            subprotocols=[Subprotocol("stentor.v1.json")],
            ping_interval=None,
            close_timeout=1,
        )

    def judge(self, connection: ServerConnection, request: Request) -> Response | None:
        """Refuses the handshake, if that is what the script of this connection has."""
        script = self.scenario["connections"]
        first = script[self.began][0] if self.began < len(script) else {}
        if "refuse" not in first:
            return None
        self.began += 1
        answer = connection.respond(http.HTTPStatus(first["refuse"]), first.get("body", "no"))
        for name, value in first.get("headers", {}).items():
            answer.headers[name] = value
        self.ended_at = self.loop.time()
        return answer

    async def meet(self, socket: ServerConnection) -> None:
        script = self.scenario["connections"]
        if self.began >= len(script):
            self.fail("it connected once more than it should have")
            return
        steps = script[self.began]
        self.began += 1
        number = self.began
        try:
            await Talk(self, socket, is_last=number == len(script)).follow(steps)
        except Failed as failed:
            self.fail(f"connection {number}: {failed}")
        except ConnectionClosed:
            self.fail(f"connection {number}: it left before the end")

    def fail(self, why: str) -> None:
        if not self.done.done():
            self.done.set_exception(Failed(why))
            self.done.exception()  # It may be too late for anybody to look at it.

    def tell(self, line: dict[str, Any]) -> None:
        self.told.append(line)
        self.news.set()

    async def heard(self) -> None:
        """Waits until the client has told as much as it has to; what it may tell is not counted."""
        needed = sum("maybe" not in want for want in self.scenario["told"])
        may = [want["maybe"] for want in self.scenario["told"] if "maybe" in want]
        while sum(not any(covers(one, line) for one in may) for line in self.told) < needed:
            self.news.clear()
            await self.news.wait()

    def judge_told(self) -> None:
        left = list(self.told)
        for want in self.scenario["told"]:
            if "maybe" in want and not (left and covers(want["maybe"], left[0])):
                continue
            if not left or not covers(want.get("maybe", want), left[0]):
                raise Failed(f"told {json.dumps(left[:1])}, expected {json.dumps(want)}")
            del left[0]
        if left:
            raise Failed(f"told {json.dumps(left)}, expected nothing more")


class Talk:
    """One connection: its script, step by step. Pings of the protocol are answered at `sync`, and at the end: behind what was sent before."""

    def __init__(self, play: Play, socket: ServerConnection, is_last: bool) -> None:
        self.play = play
        self.socket = socket
        self.is_last = is_last
        self.commands: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self.pings: list[dict[str, Any]] = []
        self.cursor: str | None = None
        self.answers_at_once = False

    async def follow(self, steps: list[dict[str, Any]]) -> None:
        reading = asyncio.create_task(self.read())
        try:
            await self.socket.send(json.dumps({**HELLO, **steps[0].get("hello", {})}))
            is_over = False
            for step in steps:
                is_over = await self.take(step)
            if not is_over:
                self.answers_at_once = True
                await self.sync()
            if self.is_last:
                await self.play.heard()
                if not is_over:
                    await self.sync()
                self.play.done.set_result(None)
            await self.socket.wait_closed()
        finally:
            reading.cancel()

    async def take(self, step: dict[str, Any]) -> bool:
        """Whether that was the end of the connection."""
        match step:
            case {"hello": _}:
                pass
            case {"after": milliseconds}:
                away = (self.play.loop.time() - self.play.ended_at) * 1000
                if away < milliseconds:
                    raise Failed(f"it came back after {away:.0f} ms, not after {milliseconds} or more")
            case {"expect": wanted}:
                await self.expect(wanted, step.get("as"))
            case {"token": token}:
                if self.socket.request is None or self.socket.request.headers.get("Authorization") != f"Bearer {token}":
                    await self.expect({"op": "auth", "token": token}, "auth")
                    await self.say({"type": "ack", "id": "$auth"})
            case {"send": message}:
                await self.say(message)
            case {"text": text}:
                await self.socket.send(text)
            case {"updates": topic, "from": first, "to": last}:
                await self.updates(topic, first, last, step)
            case {"cursor": cursor}:
                self.cursor = cursor
            case {"sync": _}:
                await self.sync()
            case {"gone": _, "or": steps} if not await self.leaves():
                self.is_last = True
                for other in steps:
                    await self.take(other)
            case {"gone": _}:
                await asyncio.wait_for(self.socket.wait_closed(), PATIENCE)
                return True
            case {"close": code}:
                await self.sync()
                self.play.ended_at = self.play.loop.time()
                await self.socket.close(code, step.get("reason", ""))
                return True
            case {"cut": _}:
                await self.sync()
                self.play.ended_at = self.play.loop.time()
                self.socket.transport.abort()
                return True
            case _:
                raise Failed(f"the script has a step that nobody knows: {step}")
        return False

    async def read(self) -> None:
        try:
            async for text in self.socket:
                command = json.loads(text)
                if command.get("op") == "ping":
                    self.pings.append(command)
                    if self.answers_at_once:
                        await self.pong()
                else:
                    self.commands.put_nowait(command)
        except ConnectionClosed:
            pass
        self.commands.put_nowait(None)

    async def leaves(self) -> bool:
        """Waits for what the client does next: whether it leaves. What it says instead is for the next step."""
        async with asyncio.timeout(PATIENCE):
            command = await self.commands.get()
        self.commands.put_nowait(command)
        return command is None

    async def expect(self, wanted: dict[str, Any], name: str | None) -> None:
        async with asyncio.timeout(PATIENCE / 2):
            command = await self.commands.get()
            while command is not None and command.get("op") == "unsub" != wanted["op"]:
                command = await self.commands.get()  # Of topics that were named to be resumed; nobody's business.
        if command is None:
            raise Failed(f"it left, expected {json.dumps(wanted)}")
        if not covers(wanted, command) or ("from" in command and "from" not in wanted and wanted["op"] == "sub"):
            raise Failed(f"it said {json.dumps(command)}, expected {json.dumps(wanted)}")
        if name is not None:
            self.play.ids[name] = command.get("id")

    async def say(self, message: dict[str, Any]) -> None:
        if isinstance(message.get("id"), str) and message["id"].startswith("$"):
            message = {**message, "id": self.play.ids[message["id"][1:]]}
        await self.socket.send(json.dumps(message))

    async def updates(self, topic: str, first: int, last: int, step: dict[str, Any]) -> None:
        """Many numbers; in the stream, unless the step has `clear`, and with `anew` the stream begins anew behind them."""
        stream = next((one for one in self.socket.protocol.extensions if isinstance(one, Stream)), None)
        if stream is None and self.play.scenario.get("compression") == "stream":
            self.play.note = " (it offers no compression, and was sent none)"
        for seq in range(first, last + 1):
            if stream is not None:
                stream.is_on, stream.ends = not step.get("clear"), bool(step.get("anew")) and seq == last
            await self.socket.send(json.dumps({"type": "update", "topic": topic, "seq": seq, "ts": seq, "data": levels(seq)}, ensure_ascii=False))
        if stream is not None:
            stream.is_on = False

    async def sync(self) -> None:
        """What was sent has been read, and what was said before that is here; a WebSocket's own ping shows it."""
        await asyncio.wait_for(await self.socket.ping(), PATIENCE / 2)
        await self.pong()

    async def pong(self) -> None:
        pings, self.pings = self.pings, []
        for ping in pings:
            await self.socket.send(json.dumps({"type": "pong", "id": ping.get("id"), "ts": 1, **({"cursor": self.cursor} if self.cursor else {})}))


def covers(wanted: Any, found: Any) -> bool:
    """Whether what was found is what was wanted: other fields don't matter, nor does the order of topics; `null` stands for a field that must not be there."""
    if isinstance(wanted, dict):
        return isinstance(found, dict) and all(
            field not in found if value is None else field in found and _meets(field, value, found[field]) for field, value in wanted.items()
        )
    return bool(wanted == found)


def _meets(field: str, wanted: Any, found: Any) -> bool:
    if field == "topics" and isinstance(found, list):
        return sorted(wanted) == sorted(found)
    if field == "from" and isinstance(wanted, dict):
        return bool(wanted == found)
    return covers(wanted, found)


class Driver:
    """The client's program: a line of JSON for each client to start and end, and a line for each thing that it tells."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.plays: dict[int, Play] = {}
        self.ends: dict[int, asyncio.Future[None]] = {}
        self.reading = asyncio.create_task(self.read())

    async def read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            told = json.loads(line)
            number = told.pop("id")
            if told == {"end": True}:
                self.ends[number].set_result(None)
            else:
                self.plays[number].tell(told)
        for play in self.plays.values():
            play.fail("the driver has ended")

    async def say(self, line: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(line).encode() + b"\n")
        await self.process.stdin.drain()

    async def run(self, number: int, scenario: dict[str, Any]) -> str | None:
        """What was wrong, if something was."""
        play = self.plays[number] = Play(scenario)
        ended = self.ends[number] = play.loop.create_future()
        server = await play.listen()
        port = server.sockets[0].getsockname()[1]
        try:
            await self.say({"id": number, "url": f"ws://127.0.0.1:{port}/ws", **scenario["client"]})
            try:
                async with asyncio.timeout(PATIENCE):
                    await asyncio.shield(play.done)
            finally:
                await self.say({"id": number, "end": True})
            async with asyncio.timeout(PATIENCE):
                await ended
            play.judge_told()
        except TimeoutError:
            return f"nothing more happened in connection {play.began}; told: {json.dumps(play.told)}"
        except Failed as failed:
            return f"{failed}; told: {json.dumps(play.told)}"
        finally:
            server.close()
        return None


async def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", default=[], metavar="NAME")
    parser.add_argument("--without", action="append", default=[], metavar="ABILITY", help="what this client can't: scenarios that need it are passed over")
    parser.add_argument("driver", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    if not options.driver:
        parser.error("expected the client's driver, found nothing")
    scenarios = json.loads(Path(__file__).with_name("scenarios.json").read_text())
    scenarios = [one for one in scenarios if one["name"] in (options.only or [one["name"]])]
    able = [one for one in scenarios if not set(one.get("needs", ())) & set(options.without)]
    process = await asyncio.create_subprocess_exec(*options.driver, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE)
    driver = Driver(process)
    outcomes = await asyncio.gather(*(driver.run(number, scenario) for number, scenario in enumerate(able)))
    assert process.stdin is not None
    process.stdin.close()
    ends = True
    try:
        await asyncio.wait_for(process.wait(), PATIENCE / 4)
    except TimeoutError:
        process.kill()
        ends = False
        print("FAILED: the driver doesn't end")
    for scenario, outcome in zip(able, outcomes, strict=True):
        print(f"passed {scenario['name']}{driver.plays[able.index(scenario)].note}" if outcome is None else f"FAILED {scenario['name']}: {outcome}")
    for scenario in scenarios:
        if scenario not in able:
            print(f"not for this client: {scenario['name']}")
    return 0 if able and ends and not any(outcomes) else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
