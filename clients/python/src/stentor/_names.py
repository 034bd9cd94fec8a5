"""Which topics a name stands for, and names in commands of bounded size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

#: A topic's epoch and the last number that one has of it.
Point = tuple[str, int]


def matches(name: str, topic: str) -> bool:
    """Whether a topic is meant by a name: itself, or a pattern in which `*` is one segment and a last `>` one or more."""
    if name in (topic, ">"):
        return True
    if "*" not in name and not name.endswith(">"):
        return False
    wanted, found = name.split("."), topic.split(".")
    if wanted[-1] == ">":
        del wanted[-1]
        return len(found) > len(wanted) and _meet(wanted, found)
    return len(found) == len(wanted) and _meet(wanted, found)


def _meet(wanted: list[str], found: list[str]) -> bool:
    return all(part in ("*", there) for part, there in zip(wanted, found, strict=False))


def is_pattern(name: str) -> bool:
    return "*" in name or name.endswith(">")


def split(names: Iterable[str], points: Mapping[str, Point], bytes_max: int) -> Iterator[tuple[list[str], dict[str, Point]]]:
    """Names, and where to resume them, in parts of at most so many bytes of JSON. Names are ASCII."""
    topics: list[str] = []
    start: dict[str, Point] = {}
    room = bytes_max
    for name in names:
        point = points.get(name)
        size = len(name) + 3 + (len(name) + len(point[0]) + 30 if point else 0)
        if size > room and topics:
            yield topics, start
            topics, start, room = [], {}, bytes_max
        topics.append(name)
        if point:
            start[name] = point
        room -= size
    if topics:
        yield topics, start
