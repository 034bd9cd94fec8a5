"""This client as the conformance script drives it: a line on standard input starts a client or ends it, each thing that it tells is a line on standard output.

    driver.py [--aio]
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import stentor
import stentor.aio
from stentor import Client, Event, Gap, Reset, StentorError, Status, Update

SOON = (0.01, 0.05)


def line_of(event: Event | StentorError) -> dict[str, Any] | None:
    match event:
        case Update(topic, seq, data):
            flags = {"snapshot": event.is_snapshot, "key": event.is_key, "stale": event.is_stale}
            return {"update": topic, "seq": seq, "data": data, **{name: True for name, there in flags.items() if there}}
        case Gap(topic, first, last, why):
            return {"gap": topic, "first": first, "last": last, "why": why}
        case Reset(topic, why=why):
            return {"reset": topic, "why": why}
        case Status(code, topics):
            return None if code in ("connected", "lost") else {"status": code, "topics": list(topics)}
        case StentorError():
            return {"error": event.code, "topics": list(event.names)}


def tokens(words: list[str]) -> str | Callable[[], str] | None:
    """One word, or a function that has another each time."""
    if len(words) < 2:
        return words[0] if words else None
    left = iter(words)
    return lambda: next(left)


class Driver:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.clients: dict[int, Callable[[], None]] = {}

    def tell(self, number: int, line: dict[str, Any] | None) -> None:
        if line is not None:
            with self.lock:
                print(json.dumps({"id": number, **line}), flush=True)

    def run(self, number: int, order: dict[str, Any]) -> None:
        """A thread of its own for each client."""
        ended = threading.Event()
        try:
            md = stentor.connect(order["url"], token=tokens(order.get("token", [])), backoff=SOON)
        except StentorError as error:
            self.tell(number, line_of(error))
            self.clients[number] = ended.set
            ended.wait()
            return self.tell(number, {"end": True})
        self.clients[number] = md.close
        for one in order["subscribe"]:
            md.subscribe(one.pop("topics"), **one)
        for one in order.get("publish", []):
            md.publish(one["topic"], one["data"]).add_done_callback(lambda future: self.published(number, future))
        self.read(number, md)
        self.tell(number, {"end": True})

    def read(self, number: int, md: Client) -> None:
        while True:
            try:
                for event in md:
                    self.tell(number, line_of(event))
                return
            except StentorError as error:
                self.tell(number, line_of(error))

    def published(self, number: int, future: Future[Any]) -> None:
        error = future.exception()
        if isinstance(error, StentorError):
            self.tell(number, line_of(error))

    async def run_aio(self, number: int, order: dict[str, Any]) -> None:
        try:
            md = await stentor.aio.connect(order["url"], token=tokens(order.get("token", [])), backoff=SOON)
        except StentorError as error:
            self.tell(number, line_of(error))
            ended = asyncio.Event()
            self.clients[number] = ended.set
            await ended.wait()
            return self.tell(number, {"end": True})
        self.clients[number] = lambda: closing.append(asyncio.ensure_future(md.close()))
        closing: list[asyncio.Future[None]] = []
        for one in order["subscribe"]:
            md.subscribe(one.pop("topics"), **one)
        for one in order.get("publish", []):
            (await md.publish(one["topic"], one["data"])).add_done_callback(lambda future: self.published_aio(number, future))
        while True:
            try:
                async for event in md:
                    self.tell(number, line_of(event))
                break
            except StentorError as error:
                self.tell(number, line_of(error))
        self.tell(number, {"end": True})

    def published_aio(self, number: int, future: asyncio.Future[Any]) -> None:
        error = future.exception()
        if isinstance(error, StentorError):
            self.tell(number, line_of(error))


def main() -> None:
    driver = Driver()
    loop = asyncio.new_event_loop() if "--aio" in sys.argv else None
    if loop is not None:
        threading.Thread(target=loop.run_forever, daemon=True).start()
    for line in sys.stdin:
        order = json.loads(line)
        number = order["id"]
        if order.get("end"):
            end = driver.clients[number]
            if loop is not None:
                loop.call_soon_threadsafe(end)
            else:
                threading.Thread(target=end, daemon=True).start()
        elif loop is not None:
            asyncio.run_coroutine_threadsafe(driver.run_aio(number, order), loop)
        else:
            threading.Thread(target=driver.run, args=(number, order), daemon=True).start()


if __name__ == "__main__":
    main()
