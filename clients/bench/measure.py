#!/usr/bin/env python3
"""Measures what an update costs in each client, beside the library that it stands on with the JSON parser of its language by hand. scripts/drivers starts it.

    measure.py --stentor PROGRAM --into FOLDER [--rounds 1] [--only CLIENT] PROGRAMS.json

PROGRAMS.json has a list of `{"client", "variant", "command", "prints"}`. A command is a subscriber: it is given the address of a server and some counts, subscribes to `b.*`
in mode `all`, writes the line `ready`, takes so many updates and looks at a field of each payload, writes `done`, takes as many as the next count says, and so on. At the end
it waits until its standard input ends. What only prints what comes (`prints`) is watched by what it has printed, into a file.

Each run has a server of its own on one core, which publishes come to from here, and a subscriber on another. Times and CPU are taken from outside, the same way for all.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

#: What is published; its last publication of a phase says so in its `venue`, for those that are watched by what they print.
PAYLOAD = '{"bid":189.21,"ask":189.23,"bidsz":300,"asksz":1200,"venue":"%s","flags":["r","x"]}'

#: Publications of one request.
LINES = 2000

#: Seconds after which a phase has failed.
PATIENCE = 120.0

#: Seconds between two requests, at a rate.
EVERY = 0.005


class Failed(Exception):
    """A run that says nothing."""


class Server:
    """A server of one worker, and the connection that publications come by."""

    def __init__(self, program: str, core: int) -> None:
        command = ["taskset", "-c", str(core), program, "--listen", "127.0.0.1:0", "--workers", "1", "--pin", "none", "--retain", "512MiB", "--lag-limit", "512MiB"]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("STENTOR")}
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
        assert self.process.stderr is not None
        said = []
        for line in self.process.stderr:
            said.append(line)
            if found := re.search(r"listening on http://127\.0\.0\.1:(\d+)/", line):
                self.port = int(found[1])
                break
        else:
            raise Failed(f"the server did not start: {''.join(said)}")
        self.http = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        self.http.connect()

    def ask(self, method: str, path: str, body: bytes | None = None) -> str:
        self.http.request(method, path, body)
        answer = self.http.getresponse()
        text = answer.read().decode()
        if answer.status != 200:
            raise Failed(f"{method} {path}: {answer.status}: {text[:200]}")
        return text

    def publish(self, bodies: list[bytes], every: float = 0.0) -> float:
        """All of them, each as a request of its own: one after the other, or one each so many seconds. How much later than planned the last one was sent, at most."""
        began, late = time.perf_counter(), 0.0
        for nth, body in enumerate(bodies):
            if every:
                due = began + nth * every
                time.sleep(max(0.0, due - time.perf_counter()))
                late = max(late, time.perf_counter() - due)
            self.ask("POST", "/publish", body)
        return late

    def subscriptions(self) -> int:
        return sum(int(float(value)) for value in re.findall(r"^stentor_subscriptions(?:\{.*\})? (\S+)$", self.ask("GET", "/metrics"), re.MULTILINE))

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


class Subscriber:
    """A program that takes updates."""

    def __init__(self, program: dict[str, Any], server: Server, counts: list[int], core: int, folder: Path) -> None:
        self.server = server
        self.prints = bool(program.get("prints"))
        url = f"ws://127.0.0.1:{server.port}/ws"
        command = ["taskset", "-c", str(core), *(part.replace("{url}", url) for part in program["command"])]
        if not self.prints:
            command += [url, *map(str, counts)]
        self.printed = folder / "printed"
        out = self.printed.open("wb") if self.prints else subprocess.PIPE
        environment = {**os.environ, **program.get("environment", {})}
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=out, env=environment, cwd=program.get("cwd"))
        try:
            self.wait("ready")
        except BaseException:
            self.end()
            raise

    def wait(self, word: str, venue: str = "") -> None:
        """Until it says this word; or, of what prints, until it has printed this venue."""
        if not self.prints:
            assert self.process.stdout is not None
            line = self.process.stdout.readline().decode().strip()
            if line != word:
                raise Failed(f"it said {line!r}, expected {word!r}")
            return
        until = time.perf_counter() + PATIENCE
        while not (self.server.subscriptions() if word == "ready" else self.has_printed(venue)):
            if time.perf_counter() > until or self.process.poll() is not None:
                raise Failed(f"it has not printed what was published within {PATIENCE:.0f} s, or has ended")
            time.sleep(0.002)

    def has_printed(self, venue: str) -> bool:
        with self.printed.open("rb") as file:
            file.seek(max(0, self.printed.stat().st_size - 4096))
            return f'"{venue}"'.encode() in file.read()

    def cpu_ns(self) -> int:
        """Of all its threads, as the scheduler counts it."""
        total = 0
        for task in Path(f"/proc/{self.process.pid}/task").iterdir():
            total += int((task / "schedstat").read_text().split()[0])
        return total

    def resident_kib(self) -> int:
        found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{self.process.pid}/status").read_text())
        return int(found[1]) if found else 0

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                try:
                    stream.close()
                except BrokenPipeError:
                    pass


def bodies(updates: int, topics: int, a_body: int, venue: str) -> list[bytes]:
    """Publications in turns over the topics, so many to a request; the last of all has the venue."""
    made = []
    for first in range(0, updates, a_body):
        lines = [f'{{"topic":"b.{n % topics}","data":{PAYLOAD % (venue if n == updates - 1 else "XNAS")}}}\n' for n in range(first, min(first + a_body, updates))]
        made.append("".join(lines).encode())
    return made


def run(program: dict[str, Any], options: argparse.Namespace, topics: int, phases: list[tuple[str, int, float]]) -> list[dict[str, Any]]:
    """A server, a subscriber, and phases: each its name, its updates, and a rate or nought for as fast as may be."""
    found = []
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:
        server = Server(options.stentor, options.server_core)
        try:
            subscriber = Subscriber(program, server, [updates for _, updates, _ in phases], options.client_core, Path(folder))
            try:
                for name, updates, rate in phases:
                    venue = name.upper()
                    every = EVERY if rate else 0.0
                    made = bodies(updates, topics, max(1, round(rate * EVERY)) if rate else LINES, venue)
                    began, cpu = time.perf_counter(), subscriber.cpu_ns()
                    late = server.publish(made, every)
                    subscriber.wait("done", venue)
                    seconds = time.perf_counter() - began
                    used = subscriber.cpu_ns() - cpu
                    found.append(
                        {
                            "phase": name,
                            "updates": updates,
                            "topics": topics,
                            "seconds": seconds,
                            "updates_per_s": updates / seconds,
                            "cpu_ns": used / updates,
                            "busy": used / 1e9 / seconds,
                            "late_s": late,
                            "resident_kib": subscriber.resident_kib(),
                        }
                    )
            finally:
                subscriber.end()
        finally:
            server.end()
    return found


def measure(program: dict[str, Any], options: argparse.Namespace, round_: int) -> list[dict[str, Any]]:
    """One round of one program: at most speed and at a rate in one life of it; memory in two more."""
    warm = ("warm", options.updates // 10, 0.0)
    runs = run(program, options, options.topics, [warm, ("most", options.updates, 0.0), ("rate", int(options.rate * options.seconds), options.rate)])
    memory = max(options.many, options.updates // 10)
    runs += run(program, options, 1, [("one topic", memory, 0.0)])
    runs += run(program, options, options.many, [("many topics", memory, 0.0)])
    return [{"client": program["client"], "variant": program["variant"], "is_bare": bool(program.get("bare")), "round": round_, **one} for one in runs if one["phase"] != "warm"]


def page(records: list[dict[str, Any]]) -> str:
    """A table with medians, the lowest and the highest in brackets."""
    lines = [
        "| client | how | updates a second at most | its core busy | CPU of an update at that speed, µs | CPU of an update at the rate, µs | to bare, most | to bare, rate | resident with one topic, MiB | a further topic, bytes |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]

    def of(client: str, variant: str, phase: str, field: str) -> dict[int, float]:
        return {one["round"]: one[field] for one in records if (one["client"], one["variant"], one["phase"]) == (client, variant, phase)}

    def show(values: list[float], form: str) -> str:
        return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})" if values else "–"

    seen: list[tuple[str, str, bool]] = []
    for one in records:
        if (name := (one["client"], one["variant"], one["is_bare"])) not in seen:
            seen.append(name)
    for client, variant, is_bare in seen:
        # Its own kind, if there is one: threads beside threads.
        bares = [other for name, other, bare in seen if name == client and bare]
        bare = next((other for other in bares if other.split()[-1] == variant.split()[-1]), bares[0] if bares else None)

        def to_bare(phase: str) -> str:
            if is_bare or bare is None:
                return "1"
            mine, theirs = of(client, variant, phase, "cpu_ns"), of(client, bare, phase, "cpu_ns")
            return show([mine[nth] / theirs[nth] for nth in mine if nth in theirs], ".2f")

        one, many = of(client, variant, "one topic", "resident_kib"), of(client, variant, "many topics", "resident_kib")
        topics = next((record["topics"] for record in records if record["phase"] == "many topics"), 1)
        each = [(many[nth] - one[nth]) * 1024 / (topics - 1) for nth in one if nth in many]
        cells = [
            client,
            variant,
            show(list(of(client, variant, "most", "updates_per_s").values()), ".0f"),
            show([value * 100 for value in of(client, variant, "most", "busy").values()], ".0f") + " %",
            show([value / 1e3 for value in of(client, variant, "most", "cpu_ns").values()], ".2f"),
            show([value / 1e3 for value in of(client, variant, "rate", "cpu_ns").values()], ".2f"),
            to_bare("most"),
            to_bare("rate"),
            show([value / 1024 for value in one.values()], ".1f"),
            show(each, ".0f"),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("programs", type=Path)
    parser.add_argument("--stentor", required=True)
    parser.add_argument("--into", required=True, type=Path)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--only", action="append", default=[], metavar="CLIENT")
    parser.add_argument("--updates", type=int, default=200_000)
    parser.add_argument("--topics", type=int, default=1000)
    parser.add_argument("--many", type=int, default=10_000)
    parser.add_argument("--rate", type=float, default=10_000.0)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--server-core", type=int, default=0)
    parser.add_argument("--client-core", type=int, default=1)
    options = parser.parse_args()
    os.sched_setaffinity(0, {options.server_core})
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    programs = [one for one in json.loads(options.programs.read_text()) if not options.only or one["client"] in options.only]
    raw = options.into / "runs.json"
    records: list[dict[str, Any]] = json.loads(raw.read_text()) if raw.exists() else []
    first = 1 + max((one["round"] for one in records), default=0)
    failed = 0
    for round_ in range(first, first + options.rounds):
        for program in programs:
            name = f"{program['client']}, {program['variant']}, round {round_}"
            try:
                runs = measure(program, options, round_)
            except Failed as why:
                failed += 1
                print(f"FAILED {name}: {why}", flush=True)
                continue
            records += runs
            raw.write_text("[\n" + ",\n".join(json.dumps(one) for one in records) + "\n]\n")
            (options.into / "table.txt").write_text(page(records))
            print(f"{name}: {runs[0]['updates_per_s']:.0f} updates/s, {runs[0]['cpu_ns']:.0f} ns; at the rate {runs[1]['cpu_ns']:.0f} ns", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
