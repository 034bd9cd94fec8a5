"""The scripted server's scenarios, which every client answers the same way."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CONFORMANCE = HERE.parents[1] / "conformance"


@pytest.mark.parametrize("loop", [(), ("--aio",)], ids=["threads", "asyncio"])
def test_every_scenario_is_answered_as_the_script_has_it(loop: tuple[str, ...]) -> None:
    path = os.pathsep.join(filter(None, [str(HERE.parent / "src"), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, str(CONFORMANCE / "run.py"), sys.executable, str(HERE / "driver.py"), *loop]
    ran = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}, check=False)
    assert ran.returncode == 0, "\n".join(line for line in ran.stdout.splitlines() if not line.startswith("passed")) + ran.stderr
