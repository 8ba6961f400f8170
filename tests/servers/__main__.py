"""`python -m tests.servers PROVIDER`: start the test server of a back end, say how to reach it, stop it at Ctrl-C."""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
import tempfile
from pathlib import Path

import click
import yaml

from tests.servers import LAUNCHERS, launch


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.servers", description=__doc__)
    parser.add_argument("provider", choices=sorted(LAUNCHERS))
    provider: str = parser.parse_args().provider
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with tempfile.TemporaryDirectory(prefix="keyside-server-") as folder, launch(provider, Path(folder)) as served:
        for name, value in served.environment.items():
            click.echo(f"export {name}={shlex.quote(value)}")
        click.echo(yaml.safe_dump({"hsm": served.hsm}, sort_keys=False))
        click.echo("runs until Ctrl-C", err=True)
        try:
            signal.pause()
        except KeyboardInterrupt:
            click.echo(err=True)


if __name__ == "__main__":
    main()
