"""A program that takes updates through this client, or through `websockets` with `json.loads` by hand, and looks at a field of each payload: what `scripts/drivers` measures.

    subscriber.py VARIANT URL COUNT…

It writes `ready` when it has subscribed, and `done` behind as many updates as each count says.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from websockets.asyncio.client import connect as bare_connect
from websockets.sync.client import connect as bare_sync_connect

# `json` is what a program has that installed nothing else.
if "json" in sys.argv[1].split():
    sys.modules["orjson"] = None  # type: ignore[assignment]

import stentor  # noqa: E402
import stentor.aio  # noqa: E402
from stentor import Update  # noqa: E402


class Counts:
    """One count after the other."""

    def __init__(self, counts: list[int]) -> None:
        self._counts = counts
        self._left = counts[0]

    def tick(self) -> bool:
        """Whether that was the last of all."""
        self._left -= 1
        if self._left:
            return False
        print("done", flush=True)
        del self._counts[0]
        if not self._counts:
            return True
        self._left = self._counts[0]
        return False


def ready() -> None:
    print("ready", flush=True)


def threads(url: str, counts: Counts) -> None:
    with stentor.connect(url, compression=False) as md:
        md.subscribe("b.*")
        md.ping()
        ready()
        for event in md:
            if isinstance(event, Update) and event.data["bid"] and counts.tick():
                break
        sys.stdin.read()


async def aio(url: str, counts: Counts) -> None:
    async with stentor.aio.connect(url, compression=False) as md:
        md.subscribe("b.*")
        await md.ping()
        ready()
        async for event in md:
            if isinstance(event, Update) and event.data["bid"] and counts.tick():
                break
        sys.stdin.read()


def bare_threads(url: str, counts: Counts) -> None:
    with bare_sync_connect(url, compression=None, proxy=None) as socket:
        socket.send('{"op":"sub","topics":["b.*"]}')
        for text in socket:
            message = json.loads(text)
            if message["type"] == "ack":
                ready()
            elif message["type"] == "update" and message["data"]["bid"] and counts.tick():
                break
        sys.stdin.read()


async def bare_aio(url: str, counts: Counts) -> None:
    async with bare_connect(url, compression=None, proxy=None) as socket:
        await socket.send('{"op":"sub","topics":["b.*"]}')
        async for text in socket:
            message = json.loads(text)
            if message["type"] == "ack":
                ready()
            elif message["type"] == "update" and message["data"]["bid"] and counts.tick():
                break
        sys.stdin.read()


VARIANTS: dict[str, Callable[[str, Counts], Awaitable[None] | None]] = {
    "stentor json threads": threads,
    "stentor orjson threads": threads,
    "websockets threads": bare_threads,
    "stentor json asyncio": aio,
    "stentor orjson asyncio": aio,
    "websockets asyncio": bare_aio,
}


def main() -> None:
    variant, url, *counts = sys.argv[1:]
    made: Any = VARIANTS[variant](url, Counts([int(count) for count in counts]))
    if asyncio.iscoroutine(made):
        asyncio.run(made)


if __name__ == "__main__":
    main()
