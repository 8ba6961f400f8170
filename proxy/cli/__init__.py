"""The command `keyside`. A command's module is imported when it runs: `--help` is quick and `serve` stays small."""

import errno
import sys
from importlib import import_module
from typing import Final

import click

from proxy import __version__
from proxy.cli.failure import Failure
from proxy.cli.streams import outlive_readers
from proxy.exits import Exit

# name: (module, attribute, what --help says)
COMMANDS: Final = {
    "init": ("proxy.cli.init", "init", "Write a configuration, a root key and an empty keystore."),
    "serve": ("proxy.cli.serve", "serve", "Run the sidecar in the foreground."),
    "keyring": ("proxy.cli.keyring", "keyring", "Create, list and show keyrings."),
    "status": ("proxy.cli.status", "status", "Show what the running sidecar does."),
    "encrypt": ("proxy.cli.fields", "encrypt", "Encrypt standard input for a keyring."),
    "decrypt": ("proxy.cli.fields", "decrypt", "Decrypt standard input for a keyring."),
    "config": ("proxy.cli.config", "config", "Check the configuration."),
    "provider": ("proxy.cli.provider", "provider", "Try and measure the configured back end, and manage its keys."),
}

EPILOG: Final = """\
Every command finds the sidecar through --config, $KEYSIDE_CONFIG or ./keyside.yaml.

\b
Exit codes:
  0   done                             71  the machine lacks something: lock limit, kernel
  1   failed otherwise                 73  cannot create a file or socket, or would overwrite it
  2   unknown command or option        74  the keystore cannot be used
  65  the input was refused            75  try later: another instance, busy, stopping, no KMS
  69  no sidecar answers               77  not allowed, by policy or on the admin socket
  70  a defect                         78  the configuration or the root key is wrong
"""


class _Commands(click.Group):
    """Lists commands without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in COMMANDS.items()])


@click.group(cls=_Commands, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="keyside")
def cli() -> None:
    """Keyside encrypts and decrypts single fields for the containers beside it."""


def main() -> None:
    """Run the command line and exit with a code of proxy.exits. People get one line, never a traceback."""
    outlive_readers()
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    try:
        result = cli.main(arguments, prog_name="keyside", standalone_mode=False)
        return result if isinstance(result, int) else Exit.OK
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return 130
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC and error.filename is None:
            sys.stdout = None  # what the interpreter itself does where there is no such stream: it flushes none
            Failure("standard output is full: make room, or send it elsewhere", Exit.FAILED).show()
            return Exit.FAILED
        from proxy import log

        log.configure("info", "text")
        correlation = log.defect("unexpected failure of this command", error)
        Failure(
            f"a defect in this command; please report it with the log line correlation={correlation}", Exit.DEFECT
        ).show()
        return Exit.DEFECT
