"""Each example of the README, run as it stands; those of one section go on where the one before ended."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import stentor.aio
from stentor import Event
from world import Server

README = Path(__file__).parents[1] / "README.md"
SECTIONS = [section for section in re.split(r"^## ", README.read_text(), flags=re.MULTILINE) if "```python" in section]

#: Events after which somebody presses Ctrl-C.
ENOUGH = 300


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    left = ENOUGH
    following, awaiting = stentor.Client.__next__, stentor.aio.Client.__anext__

    def count() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            left = ENOUGH
            raise KeyboardInterrupt

    def following_until(md: stentor.Client) -> Event:
        count()
        return following(md)

    async def awaiting_until(md: stentor.aio.Client) -> Event:
        count()
        return await awaiting(md)

    monkeypatch.setattr(stentor.Client, "__next__", following_until)
    monkeypatch.setattr(stentor.aio.Client, "__anext__", awaiting_until)
    yield


@pytest.mark.parametrize("section", SECTIONS, ids=[section.splitlines()[0] for section in SECTIONS])
def test_examples_do_what_they_say(section: str) -> None:
    if "import pandas" in section:
        pytest.importorskip("pandas")
    with Server("--demo", "--demo-rate", "5k/s") as server:
        names: dict[str, Any] = {}
        examples = re.findall(r"^```python\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
        for example in examples:
            run(example, server, names)
        while "quotes" in names and len(names["quotes"]) < 4:
            run(examples[-1], server, names)  # A cell of a notebook, once more.
        for md in names.values():
            if isinstance(md, stentor.Client):
                md.close()


def run(example: str, server: Server, names: dict[str, Any]) -> None:
    try:
        exec(compile(example.replace("127.0.0.1:9001", f"127.0.0.1:{server.port}"), str(README), "exec"), names)
    except KeyboardInterrupt:
        pass
