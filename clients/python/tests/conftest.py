from __future__ import annotations

from collections.abc import Iterator

import pytest
from world import Server, deadline


@pytest.fixture(autouse=True)
def patience() -> Iterator[None]:
    with deadline():
        yield


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as one:
        yield one
