"""How long a client stays away."""

from __future__ import annotations

import asyncio
import math
import random
from types import SimpleNamespace
from typing import Any

import pytest
from stentor._engine import AWAY_MAX, Engine, Options, _bounded
from stentor._inbox import Inbox


@pytest.fixture
def bounds(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, float]]:
    """Within which delays were random."""
    asked: list[tuple[float, float]] = []

    def uniform(first: float, last: float) -> float:
        asked.append((first, last))
        return last

    monkeypatch.setattr(random, "uniform", uniform)
    return asked


def engine() -> Engine:
    return Engine(Options(["ws://test/ws"]), Inbox(1000, "wait", lambda: None, lambda: None), lambda: None)


def test_delays_are_random_below_a_bound_that_doubles(bounds: list[tuple[float, float]]) -> None:
    one = engine()
    for _ in range(7):
        one._delay(1006)
    assert bounds == [(0, 0.5), (0, 1), (0, 2), (0, 4), (0, 8), (0, 15), (0, 15)]


def test_who_asked_too_much_or_found_no_room_stays_away_for_long(bounds: list[tuple[float, float]]) -> None:
    for code in (1013, 4003):
        engine()._delay(code)
    assert bounds == [(7.5, 15)] * 2


@pytest.mark.parametrize(("said", "taken"), [(7.0, 7.0), (-1.0, 0.0), (1e18, AWAY_MAX), (math.inf, AWAY_MAX), (math.nan, 0.0)])
def test_a_server_sends_nobody_away_for_ever(said: float, taken: float) -> None:
    assert _bounded(said) == taken


def nothing(why: str) -> None:
    """What a connection that is none does when it is ended."""


@pytest.mark.parametrize(("lasted", "ends"), [(0.0, True), (3600.0, False)])
def test_tokens_that_expire_are_no_wrong_ones(monkeypatch: pytest.MonkeyPatch, lasted: float, ends: bool) -> None:
    async def program() -> None:
        loop = asyncio.get_running_loop()
        one = Engine(Options(["ws://test/ws"], token=lambda: "T"), Inbox(1000, "wait", lambda: None, lambda: None), lambda: None)
        for _ in range(3):
            wire: Any = SimpleNamespace(closed=loop.create_future(), broken=None, abort=nothing)
            opened = asyncio.ensure_future(one._opened("ws://test/ws", wire))
            await asyncio.sleep(0)
            one.is_open = True
            later = loop.time() + lasted
            with monkeypatch.context() as clock:
                clock.setattr(loop, "time", lambda: later)
                wire.closed.set_result((4001, "expired"))
                await opened
        assert (one.end is not None) is ends

    asyncio.run(program())
