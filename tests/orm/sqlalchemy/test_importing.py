"""What must be installed to begin with: SQLAlchemy alone."""

from __future__ import annotations

import subprocess
import sys

import pytest

WITHOUT = "import sys; sys.modules['{module}'] = None; "


def run(code: str, without: str) -> subprocess.CompletedProcess[str]:
    """Run Python in which a module cannot be imported."""
    words = [sys.executable, "-c", WITHOUT.format(module=without) + code]
    return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)


SYNCHRONOUS = """
from keyside import Client
from keyside.sqlalchemy import Encrypted, install, uninstall
from sqlalchemy import create_engine
engine = create_engine("sqlite://")
install(engine, Client("/nowhere"))
uninstall(engine)
"""


@pytest.mark.parametrize("code", [SYNCHRONOUS, "from keyside.orm import main; main(['--help'])"])
def test_engines_that_are_not_asynchronous_need_no_greenlet(code: str) -> None:
    done = run(code, without="greenlet")
    assert done.returncode == 0, done.stderr


def test_the_command_without_sqlalchemy_says_what_to_install() -> None:
    done = run("from keyside.orm import main; sys.exit(main(['status', 'x:y']))", without="sqlalchemy")
    assert done.returncode == 1
    assert done.stderr == (
        "keyside-orm: sqlalchemy is not installed; install this package with its extra: keyside[sqlalchemy]\n"
    )


def test_the_help_tells_exit_codes() -> None:
    done = run("from keyside.orm import main; main(['backfill', '--help'])", without="sqlalchemy")
    assert "75 when the sidecar or the database is\naway" in done.stdout
