"""Updates a second and CPU per update: this client, and `websockets` with `json.loads` by hand, each with the same server and the same publications.

    STENTOR=target/release/stentor python benches/rate.py [--updates 200000] [--rounds 5] [--raw FILE]

Each round starts a server, lets one subscriber connect, publishes, and measures from the first update that comes to the last; in the subscriber, process and threads:
wall time, and CPU. Rounds of the variants take turns. Subscribers do the least that a program does: they look at a field of the payload.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import time
import urllib.request
from typing import Any

import stentor
import stentor.aio
from stentor import Update
from websockets.asyncio.client import connect as bare_connect
from websockets.sync.client import connect as bare_sync_connect

PAYLOAD = '{"bid":189.21,"ask":189.23,"bidsz":300,"asksz":1200,"venue":"XNAS","flags":["r","x"]}'
LINES = 2000


class Clock:
    """From the first update on."""

    def __init__(self, updates: int) -> None:
        self.left = updates
        self.began = 0.0
        self.cpu = 0.0

    def tick(self) -> bool:
        """Whether that was the last."""
        if not self.began:
            self.began, self.cpu = time.perf_counter(), cpu()
        self.left -= 1
        return self.left == 0

    def result(self, updates: int) -> dict[str, float]:
        seconds = time.perf_counter() - self.began
        return {"updates_per_s": updates / seconds, "cpu_us": (cpu() - self.cpu) / updates * 1e6, "rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def threads(url: str, updates: int, ready: Any) -> dict[str, float]:
    with stentor.connect(url, compression=False) as md:
        md.subscribe("b.*")
        md.ping()
        ready()
        clock = Clock(updates)
        for event in md:
            if isinstance(event, Update) and event.data["bid"] and clock.tick():
                break
        return clock.result(updates)


async def aio(url: str, updates: int, ready: Any) -> dict[str, float]:
    async with stentor.aio.connect(url, compression=False) as md:
        md.subscribe("b.*")
        await md.ping()
        ready()
        clock = Clock(updates)
        async for event in md:
            if isinstance(event, Update) and event.data["bid"] and clock.tick():
                break
        return clock.result(updates)


def bare_threads(url: str, updates: int, ready: Any) -> dict[str, float]:
    with bare_sync_connect(url, compression=None, proxy=None) as socket:
        socket.send('{"op":"sub","topics":["b.*"]}')
        for _ in ("hello", "ack"):
            socket.recv()
        ready()
        clock = Clock(updates)
        for text in socket:
            message = json.loads(text)
            if message["type"] == "update" and message["data"]["bid"] and clock.tick():
                break
        return clock.result(updates)


async def bare_aio(url: str, updates: int, ready: Any) -> dict[str, float]:
    async with bare_connect(url, compression=None, proxy=None) as socket:
        await socket.send('{"op":"sub","topics":["b.*"]}')
        for _ in ("hello", "ack"):
            await socket.recv()
        ready()
        clock = Clock(updates)
        async for text in socket:
            message = json.loads(text)
            if message["type"] == "update" and message["data"]["bid"] and clock.tick():
                break
        return clock.result(updates)


VARIANTS = {"stentor.aio": aio, "websockets asyncio": bare_aio, "stentor": threads, "websockets threads": bare_threads}


def subscriber(variant: str, url: str, updates: int) -> None:
    """In a process of its own: says when it has subscribed, and at last what it measured."""
    made: Any = VARIANTS[variant](url, updates, lambda: print("ready", flush=True))
    print(json.dumps(asyncio.run(made) if asyncio.iscoroutine(made) else made), flush=True)


def measure(variant: str, updates: int, topics: int) -> dict[str, float]:
    """One round. Publishing waits where the subscriber is slower, since everything fits into what the server retains."""
    command = [os.environ["STENTOR"], "--listen", "127.0.0.1:0", "--workers", "1", "--retain", "512MiB"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    try:
        port = next(found[1] for line in server.stderr if (found := re.search(r"listening on http://127\.0\.0\.1:(\d+)/", line)))
        client = subprocess.Popen(
            [sys.executable, __file__, "--subscriber", variant, "--url", f"ws://127.0.0.1:{port}/ws", "--updates", str(updates)], stdout=subprocess.PIPE, text=True
        )
        assert client.stdout is not None
        if client.stdout.readline() != "ready\n":
            raise RuntimeError(f"{variant} did not subscribe")
        for first in range(0, updates, LINES):
            lines = "".join(f'{{"topic":"b.{n % topics}","data":{PAYLOAD}}}\n' for n in range(first, min(first + LINES, updates)))
            urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{port}/publish", lines.encode()), timeout=60).read()
        said = client.communicate(timeout=300)[0]
        return dict(json.loads(said))
    finally:
        server.kill()
        server.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=200_000)
    parser.add_argument("--topics", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--raw", help="a file for what was measured, as JSON")
    parser.add_argument("--subscriber", help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.subscriber:
        return subscriber(options.subscriber, options.url, options.updates)
    rounds: dict[str, list[dict[str, float]]] = {variant: [] for variant in VARIANTS}
    for _ in range(options.rounds):
        for variant in VARIANTS:
            rounds[variant].append(measure(variant, options.updates, options.topics))
    for variant, found in rounds.items():
        middle = {name: statistics.median(one[name] for one in found) for name in found[0]}
        print(f"{variant:20} {middle['updates_per_s']:9,.0f} updates/s  {middle['cpu_us']:6.2f} us CPU each  {middle['rss_mib']:5.0f} MiB")
    if options.raw:
        from importlib.metadata import version

        about = {"python": sys.version, "websockets": version("websockets"), "updates": options.updates, "topics": options.topics, "parser": _parser()}
        with open(options.raw, "w") as file:
            json.dump({**about, "rounds": rounds}, file, indent=1)


def _parser() -> str:
    try:
        import orjson
    except ImportError:
        return "json"
    return f"orjson {orjson.__version__}"


if __name__ == "__main__":
    main()
