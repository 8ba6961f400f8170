"""`keyside provider list` and `describe`: what there is, and what the configured one can do."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from proxy.cli.options import config_option, json_option
from proxy.cli.provider.opened import with_provider

if TYPE_CHECKING:
    from providers import Capability, Description, Provider


@click.command(name="list")
@json_option
def list_(as_json: bool) -> None:
    """List the names that `hsm.provider` may have."""
    from providers.registry import BUILT

    if as_json:
        click.echo(json.dumps([{"name": name, "built": True} for name in BUILT], indent=2))
        return
    for name in BUILT:
        click.echo(name)


@click.command(short_help="Show what the configured back end can do, and what not and why.")
@config_option
@json_option
@click.option("--open", "opening", is_flag=True, help="Connect first: the key's name, and what depends on the device.")
def describe(config_path: Path, as_json: bool, opening: bool) -> None:
    """Show the configured back end: its key, mechanism, settings, what it can do and the reason for what it cannot.

    Nothing is connected to without --open.
    """

    async def ask(provider: "Provider") -> "Description":
        if opening:
            await provider.initialize()
        return provider.describe()

    found = _document(with_provider(config_path, ask))
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        _print(found)


def _document(found: "Description") -> dict[str, Any]:
    from providers import Capability

    return {
        "provider": found.provider,
        "kek": found.kek,
        "mechanism": found.mechanism,
        "concurrent_calls": found.concurrent_calls,
        "timeout_seconds": found.timeout_seconds,
        "capabilities": {_name(flag): flag in found.capabilities for flag in Capability},
        "lacks": {_name(flag): reason for flag, reason in found.lacks.items()},
        "options": dict(found.options),
    }


def _name(flag: "Capability") -> str:
    return (flag.name or "").lower()


def _print(found: dict[str, Any]) -> None:
    import yaml

    from proxy.cli.tables import new_table, show

    table = new_table()
    table.add_row("provider", found["provider"])
    table.add_row("key", found["kek"] or "not opened: see --open")
    table.add_row("mechanism", found["mechanism"])
    table.add_row("calls at once", str(found["concurrent_calls"]))
    table.add_row("time for a call", f"{found['timeout_seconds']:g} s, retries included")
    show(table)
    click.echo()
    capabilities = new_table("can", "", "why not")
    for name, can in found["capabilities"].items():
        capabilities.add_row(name.replace("_", " "), "yes" if can else "no", found["lacks"].get(name, ""))
    show(capabilities)
    click.echo("\nsettings, secrets left out:")
    for line in yaml.safe_dump(found["options"], sort_keys=False).splitlines():
        click.echo(f"  {line}")
