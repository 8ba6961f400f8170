"""What the README shows is run as it stands there, against a sidecar of its own."""

from __future__ import annotations

import http.client
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.house.test_docs import FENCE
from tests.house.tree import text

README = text("README.md")
READY = "until [ -S run/keyside.sock ]; do sleep 0.05; done\n"


def by_hand() -> str:
    """The commands under "By hand", up to the keyrings that the other examples need, and the rest."""
    section = README.split("## By hand\n", 1)[1].split("\n## ", 1)[0]
    return "\n".join(line[4:] for line in section.splitlines() if line.startswith("    "))


@pytest.fixture(scope="module")
def session() -> Iterator[tuple[Path, subprocess.CompletedProcess[str]]]:
    """The folder in which the commands of "By hand" were run, and what they printed; its sidecar still serves."""
    commands = by_hand().replace(". .venv/bin/activate\n", "")
    serve = next(line for line in commands.splitlines(keepends=True) if line.startswith("keyside serve"))
    # a person uses two terminals and waits for `serving`; the sidecar's output must not hold ours open
    script = commands.replace(serve, serve.split("#")[0].rstrip() + f" >log 2>&1 & echo $! >pid\n{READY}")
    with tempfile.TemporaryDirectory(prefix="ks-") as name:
        folder = Path(name)
        environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        try:
            yield (
                folder,
                subprocess.run(
                    ["sh", "-eu", "-c", script], cwd=folder, env=environment, capture_output=True, text=True, timeout=60
                ),
            )
        finally:
            pid = folder / "pid"
            if pid.exists():
                os.kill(int(pid.read_text()), signal.SIGTERM)


def test_the_commands_work_in_the_order_shown(session: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    _, done = session
    assert done.returncode == 0, done.stderr
    assert "secret" in done.stdout


def test_the_python_snippet_runs(session: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, _ = session
    snippet = next(code for language, code in FENCE.findall(README) if language == "python")
    done = subprocess.run([sys.executable, "-c", snippet], cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("refused:") == 3


def test_the_http_example_answers_as_shown(session: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    """The request of the curl line, sent without curl, which a machine need not have."""
    folder, _ = session
    line = next(code for language, code in FENCE.findall(README) if language == "sh" and "curl" in code)
    words = shlex.split(line)
    path, url, body = words[words.index("--unix-socket") + 1], words[3], words[words.index("-d") + 1]
    connection = http.client.HTTPConnection("localhost", timeout=10)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(folder / path))
    connection.request("POST", re.sub(r"^http://localhost", "", url), body)
    answer = connection.getresponse()
    items = json.loads(answer.read())["items"]
    connection.close()
    assert answer.status == 200
    assert len(items) == 1
    assert items[0].startswith("ks1.")
