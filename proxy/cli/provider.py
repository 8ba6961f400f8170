"""`keyside provider`: back ends of this release."""

import json

import click

from proxy.cli.options import json_option


@click.group()
def provider() -> None:
    """List the back ends of this release."""


@provider.command(name="list")
@json_option
def list_(as_json: bool) -> None:
    """List every provider name of the configuration's vocabulary, and which this release has."""
    from providers.registry import BUILT, VOCABULARY

    if as_json:
        click.echo(json.dumps([{"name": name, "built": name in BUILT} for name in VOCABULARY], indent=2))
        return
    for name in VOCABULARY:
        click.echo(f"{name:16} {'in this release' if name in BUILT else 'not in this release'}")
