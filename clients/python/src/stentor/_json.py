"""How payloads become values, and values payloads."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any


def loads_of(parse_float: Callable[[str], Any] | None) -> Callable[[bytes], Any]:
    """A parser: orjson's if it is installed, unless numbers with a point are to become something of their own, as by `decimal.Decimal`."""
    if parse_float is not None:
        decode = json.JSONDecoder(parse_float=parse_float).decode
        return lambda raw: decode(raw.decode())
    try:
        import orjson
    except ImportError:
        decode = json.JSONDecoder().decode
        return lambda raw: decode(raw.decode())
    return orjson.loads


def dumps(value: Any) -> bytes:
    """A value as JSON. Raises for what JSON can't say, such as NaN."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
