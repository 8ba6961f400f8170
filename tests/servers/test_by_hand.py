"""What docs/providers/testing.md says: a test server started by hand serves `keyside provider check`."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.servers import LAUNCHERS

ROOT = Path(__file__).parents[2]
POLICY = {"peers": [{"name": "me", "uid": os.getuid(), "keyrings": ["*"], "operations": "all"}]}


@pytest.mark.parametrize("provider", sorted(LAUNCHERS))
def test_what_it_prints_is_a_configuration(provider: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.servers", provider]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout is not None
        exports, section = {}, ""
        for line in iter(server.stdout.readline, "\n"):
            if line.startswith("export "):
                name, _, value = shlex.split(line)[1].partition("=")
                exports[name] = value
            else:
                section += line
        config = tmp_path / "keyside.yaml"
        config.write_text(yaml.safe_dump({**yaml.safe_load(section), "policy": POLICY}))
        check = [sys.executable, "-m", "proxy.cli", "provider", "check", "--config", str(config)]
        done = subprocess.run(check, cwd=ROOT, env={**os.environ, **exports}, capture_output=True, text=True)
        server.send_signal(signal.SIGINT)
        assert server.wait(30) == 0
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
