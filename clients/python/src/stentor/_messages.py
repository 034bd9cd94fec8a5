"""Messages of the server taken apart, as far as `json` alone doesn't do it."""

from __future__ import annotations

import json
import re
from typing import Any, cast

#: A publication or a last value, as most messages are. Those that have other fields, or others' order, are taken apart the long way. `data` is the last field.
PUBLICATION = re.compile(rb'\{"type":"(update|snapshot)","topic":"([^"\\]+)",(?:"epoch":"([^"\\]+)",)?"seq":(\d+),"ts":(\d+),"data":').match

#: White space between the parts of JSON (RFC 8259, section 2).
WHITE = re.compile(r"[ \t\n\r]*")


def payload(message: bytes | bytearray) -> bytes:
    """The text of a message's field `data`, as it stands there."""
    text = message.decode()
    decoder = json.JSONDecoder()

    def skip(at: int) -> int:
        found = WHITE.match(text, at)
        return found.end() if found else at

    at = skip(skip(0) + 1)
    while True:
        name, at = decoder.raw_decode(text, at)
        start = skip(skip(at) + 1)
        _, at = decoder.raw_decode(text, start)
        if name == "data":
            return text[start:at].encode()
        at = skip(at)
        if text[at] != ",":
            raise KeyError("data")
        at = skip(at + 1)


def window_of(retry: Any) -> tuple[float, float]:
    """A window of milliseconds: two numbers, or one that is its end."""
    if not isinstance(retry, list):
        return 0.0, float(retry)
    first, last = cast("list[float]", retry)
    return float(first), float(last)
