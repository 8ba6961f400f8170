"""How a command fails: one line on standard error, and an exit code that scripts can rely on."""

from typing import IO, Any

import click

from proxy.exits import Exit


class Failure(click.ClickException):
    """The command cannot do what was asked. The message says what to do next, and holds nothing secret."""

    def __init__(self, message: str, exit_code: Exit) -> None:
        super().__init__(message)
        self.exit_code = int(exit_code)  # type: ignore[misc]  # click reads it from the instance as well

    def show(self, file: IO[Any] | None = None) -> None:
        for line in self.message.splitlines():
            click.echo(f"keyside: {line}", file=file, err=file is None)
