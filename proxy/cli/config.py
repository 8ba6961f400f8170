"""`keyside config`: what is wrong with a configuration, before it is put into force."""

import json
from pathlib import Path

import click
from click.core import ParameterSource

from proxy.cli.failure import Failure
from proxy.cli.options import config_option, json_option, problem_lines
from proxy.exits import Exit


@click.group()
def config() -> None:
    """Check the configuration."""


@config.command(short_help="Name every problem of the configuration.")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@config_option
@json_option
def check(file: Path | None, config_path: Path, as_json: bool) -> None:
    """Name every problem of FILE (or of --config), and every setting that this release does not act on."""
    from proxy.config import ConfigError, load

    given = click.get_current_context().get_parameter_source("config_path")
    if file is not None and given is ParameterSource.COMMANDLINE:
        raise click.UsageError("name the file once: as FILE, or with --config")
    path = file or config_path
    try:
        unbuilt = load(path).unbuilt()
    except ConfigError as error:
        if as_json:
            problems = [{"path": problem.path, "message": problem.message} for problem in error.problems]
            click.echo(json.dumps({"ok": False, "problems": problems, "unbuilt": []}, indent=2))
        raise Failure("\n".join(problem_lines(path, error)), Exit.CONFIG) from error
    if as_json:
        click.echo(json.dumps({"ok": True, "problems": [], "unbuilt": unbuilt}, indent=2))
        return
    for line in unbuilt:
        click.echo(f"{path}: {line}")
    click.echo(f"{path}: no problems")
