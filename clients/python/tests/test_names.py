from __future__ import annotations

import pytest
from stentor._names import matches, split


@pytest.mark.parametrize(
    ("name", "topic", "expected"),
    [
        ("a.b", "a.b", True),
        ("a.b", "a.c", False),
        ("a.*", "a.b", True),
        ("a.*", "a", False),
        ("a.*", "a.b.c", False),
        ("*.b", "a.b", True),
        ("a.>", "a.b.c", True),
        ("a.>", "a", False),
        ("a.>", "b.a", False),
        ("*.>", "a.b", True),
        ("*.>", "a", False),
        (">", "a", True),
        ("*", "a.b", False),
    ],
)
def test_names_match_as_the_server_has_it(name: str, topic: str, expected: bool) -> None:
    assert matches(name, topic) is expected


def test_many_names_go_in_several_commands_each_once_and_in_order() -> None:
    names = [f"topic.number.{n}" for n in range(100)]
    points = {name: ("k", 7) for name in names[::2]}
    parts = list(split(names, points, 500))
    assert [name for topics, _ in parts for name in topics] == names
    assert {name: point for _, start in parts for name, point in start.items()} == points
    assert len(parts) > 5 and all(set(start) <= set(topics) for topics, start in parts)
