"""Options that many commands share, and the configuration they lead to."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from proxy.cli.failure import Failure
from proxy.exits import Exit

if TYPE_CHECKING:
    from proxy.config import Config, Sockets

DEFAULT: Final = Path("keyside.yaml")

Command = TypeVar("Command", bound=Callable[..., Any])


def config_option(command: Command) -> Command:
    return click.option(
        "--config",
        "config_path",
        type=click.Path(path_type=Path),
        envvar="KEYSIDE_CONFIG",
        default=DEFAULT,
        show_default="$KEYSIDE_CONFIG, ./keyside.yaml",
        help="The sidecar's configuration file.",
    )(command)


def json_option(command: Command) -> Command:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for programs instead of text for people.")(
        command
    )


def read_config(path: Path) -> "Config":
    """Load the configuration, or fail with every problem, a line each."""
    from proxy.config import ConfigError, load

    try:
        return load(path)
    except ConfigError as error:
        raise Failure("\n".join(problem_lines(path, error)), Exit.CONFIG) from error


def read_sockets(path: Path) -> "Sockets":
    """Where the running sidecar is, with a warning when other parts of its configuration have problems."""
    from proxy.config import ConfigError, load_sockets

    try:
        sockets = load_sockets(path)
    except ConfigError as error:
        raise Failure("\n".join(problem_lines(path, error)), Exit.CONFIG) from error
    if sockets.problems:
        click.echo(
            f"keyside: warning: {path} has problems; only its socket paths were used, and the sidecar would not start "
            "with it: see `keyside config check`",
            err=True,
        )
    return sockets


def problem_lines(path: Path, error: Any) -> list[str]:
    return [f"{path}: {problem}" for problem in error.problems]
