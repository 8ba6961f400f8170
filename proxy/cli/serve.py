"""`keyside serve`: the sidecar itself."""

import os
from pathlib import Path

import click

from proxy.cli.failure import Failure
from proxy.cli.options import config_option, read_config
from proxy.startup import StartupError, reexecute_with_overwriting_allocator


@click.command()
@config_option
def serve(config_path: Path) -> None:
    """Run the sidecar in the foreground.

    SIGTERM and SIGINT let requests in progress finish and then end it; SIGHUP reads the configuration again. Logs go to
    standard error.
    """
    try:
        reexecute_with_overwriting_allocator(os.environ)
    except StartupError as error:
        raise Failure(str(error), error.exit_code) from error
    config = read_config(config_path)
    from proxy.assembly import run

    try:
        run(config_path, config)
    except StartupError as error:
        raise Failure(str(error), error.exit_code) from error
