"""Programs run in a Python of their own: what opens the arena differently, crashes, forks or gives up privileges."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

# For a process whose limits must bind: root has CAP_IPC_LOCK. Imports come before it: nobody may not read the modules
AS_NOBODY = """
import os
if os.getuid() == 0:
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
"""


def environment(folder: Path | None = None) -> dict[str, str]:
    paths = [str(folder)] if folder else []
    return os.environ | {"PYTHONPATH": os.pathsep.join([*paths, os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)}


def run(program: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run `program`, `folder` on its path; a crash is told by the return code, not raised."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env=environment(folder),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def output(program: str, folder: Path | None = None) -> str:
    """What `program` printed; it must end well."""
    done = run(program, folder)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
