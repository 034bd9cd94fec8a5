"""A Stentor of one's own, a link to it that can be stalled and cut, and a book as a program keeps one."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import threading
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from stentor import Event, Gap, Reset, Update

#: Seconds after which a test has failed.
PATIENCE = 20.0


class Server:
    """The program that STENTOR names, on a port of its own unless one is given."""

    def __init__(self, *args: str, port: int = 0) -> None:
        command = [os.environ["STENTOR"], "--listen", f"127.0.0.1:{port}", "--workers", "1", "--pin", "none", *args]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("STENTOR")}
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environment)
        assert self._process.stderr is not None
        self.port = 0
        #: The port for TLS, if it listens there.
        self.secure_port = 0
        wanted = 2 if "--tls-listen" in args else 1
        said = ""
        for line in self._process.stderr:
            said += line
            if found := re.search(r"listening on (https?)://127\.0\.0\.1:(\d+)/", line):
                if found[1] == "https":
                    self.secure_port = int(found[2])
                else:
                    self.port = int(found[2])
                wanted -= 1
                if not wanted:
                    break
        if wanted:
            raise RuntimeError(f"it ended before it listened: {said}")
        # Read on, or its log blocks it.
        threading.Thread(target=self._process.stderr.read, daemon=True).start()

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/ws"

    def publish(self, topic: str, data: Any, token: str | None = None) -> dict[str, Any]:
        """Over HTTP: not through what is tested."""
        return dict(self._ask(f"/publish/{topic}?as=json", json.dumps(data).encode(), token))

    def publish_many(self, publications: list[tuple[str, Any]]) -> None:
        lines = "".join(json.dumps({"topic": topic, "data": data}) + "\n" for topic, data in publications)
        self._ask("/publish", lines.encode(), None)

    def values(self) -> dict[str, Any]:
        """What the server has, topic by topic."""
        names = [topic["topic"] for topic in self._ask("/topics", None, None)["topics"]]
        return {name: self._ask(f"/topics/{name}", None, None)["data"] for name in names}

    def _ask(self, path: str, body: bytes | None, token: str | None) -> Any:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", body)
        if token is not None:
            request.add_header("Authorization", f"Bearer {token}")
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return json.load(answer)

    def end(self, how: int = signal.SIGKILL) -> None:
        self._process.send_signal(how)
        self._process.wait()
        assert self._process.stderr is not None

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self.end()


class Link:
    """A TCP link to a port."""

    def __init__(self, to: int) -> None:
        self.to = to
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._flows = threading.Event()
        self._flows.set()
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/ws"

    def stall(self) -> None:
        """Nothing goes through any more, and nobody is told."""
        self._flows.clear()

    def flow(self) -> None:
        self._flows.set()

    def cut(self) -> None:
        """Ends all that there are, without a word."""
        with self._lock:
            sockets, self._sockets = self._sockets, set()
        for one in sockets:
            _end(one)

    def close(self) -> None:
        _end(self._listener)
        self.cut()
        self._flows.set()

    def __enter__(self) -> Link:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", self.to))
            except OSError:
                near.close()
                continue
            with self._lock:
                self._sockets |= {near, far}
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=(one, other), daemon=True).start()

    def _pump(self, one: socket.socket, other: socket.socket) -> None:
        try:
            while data := one.recv(65_536):
                self._flows.wait()
                other.sendall(data)
        except OSError:
            pass
        _end(one)
        _end(other)


def _end(one: socket.socket) -> None:
    try:
        one.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    one.close()


class Book:
    """What a program knows of a feed: values, as far as they are good. It holds the events to what they promise: in mode `all` each number, else never an older one."""

    def __init__(self, is_gapless: bool = True) -> None:
        self._is_gapless = is_gapless
        self.values: dict[str, Any] = {}
        self._at: dict[str, tuple[str | None, int]] = {}
        self.gaps: list[Gap] = []
        self.resets: list[Reset] = []
        self.seen: list[tuple[str, int]] = []

    def take(self, event: Event) -> None:
        match event:
            case Update(topic, seq, data):
                self._follows(event, topic, seq)
                self._at[topic] = (event.epoch, seq)
                self.values[topic] = data
                self.seen.append((topic, seq))
            case Gap(topic, first, last, _):
                self._follows(event, topic, first)
                self._at[topic] = (self._at.get(topic, (None,))[0], last)
                self.values.pop(topic, None)
                self.gaps.append(event)
            case Reset(topic):
                self._at.pop(topic, None)
                self.values.pop(topic, None)
                self.resets.append(event)
            case _:
                pass


    def _follows(self, event: Event, topic: str, seq: int) -> None:
        _, before = self._at.get(topic, (None, None))
        assert before is None or seq == before + 1 or (seq > before and not self._is_gapless), f"{event} behind {before}"


@contextmanager
def deadline(seconds: float = PATIENCE) -> Generator[None, None, None]:
    """A test that waits for ever says where."""

    def late(*_: object) -> None:
        raise TimeoutError(f"not done within {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
