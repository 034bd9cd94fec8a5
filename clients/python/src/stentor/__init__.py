"""A client of Stentor, the broadcast server for market data.

    from stentor import Gap, Reset, Update, connect

    with connect("ws://127.0.0.1:9001/ws") as md:
        md.subscribe("q.demo.*")
        for event in md:
            match event:
                case Update(topic, seq, data):
                    print(topic, seq, data)

It stays connected: after a loss it comes back after a random and growing delay, subscribes again, and goes on where each topic was left, or says what is
missing (`Gap`), or that it begins anew (`Reset`). `stentor.aio` has the same names for asyncio.
"""

from __future__ import annotations

from ._client import Settings
from ._events import Event, Gap, Receipt, Reset, StentorError, Status, Subscribed, Update
from ._threads import Client, connect

__all__ = [
    "Client",
    "Event",
    "Gap",
    "Receipt",
    "Reset",
    "Settings",
    "StentorError",
    "Status",
    "Subscribed",
    "Update",
    "connect",
]

__version__ = "0.1.0"
