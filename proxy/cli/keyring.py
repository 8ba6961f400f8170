"""`keyside keyring`: keyrings of the running sidecar, over its admin socket."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from proxy.cli.admin_client import ask
from proxy.cli.failure import Failure
from proxy.cli.options import config_option, json_option, read_sockets
from proxy.exits import Exit


@click.group()
def keyring() -> None:
    """Create, list and show keyrings."""


@keyring.command()
@click.argument("name")
@click.option("--partitioned", is_flag=True, help="Data keys of their own for each partition, as in users/42.")
@click.option(
    "--index-bits", type=click.IntRange(8, 256), help="Length of blind indexes, a multiple of 8. [default: 128]"
)
@config_option
@json_option
def create(name: str, partitioned: bool, index_bits: int | None, config_path: Path, as_json: bool) -> None:
    """Create the keyring NAME."""
    wanted: dict[str, object] = {"name": name, "partitioned": partitioned}
    if index_bits is not None:
        wanted["index_bits"] = index_bits
    made = ask(read_sockets(config_path).admin, "POST", "/v1/keyrings", wanted)
    _print_one(made, as_json, "created ")


@keyring.command(name="show")
@click.argument("name")
@config_option
@json_option
def show_one(name: str, config_path: Path, as_json: bool) -> None:
    """Show the keyring NAME."""
    if not name:
        raise Failure("a keyring's name has 1 to 64 characters; list them with: keyside keyring list", Exit.DATA)
    found = ask(read_sockets(config_path).admin, "GET", f"/v1/keyrings/{quote(name, safe='')}")
    _print_one(found, as_json, "")


@keyring.command(name="list")
@config_option
@json_option
def list_(config_path: Path, as_json: bool) -> None:
    """List all keyrings."""
    found = ask(read_sockets(config_path).admin, "GET", "/v1/keyrings")["keyrings"]
    if as_json:
        click.echo(json.dumps(found, indent=2))
    elif not found:
        click.echo("no keyrings yet; make one with: keyside keyring create NAME")
    else:
        _print_table(found)


def _print_one(found: dict[str, Any], as_json: bool, before: str) -> None:
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    kind = "partitioned: use it as NAME/partition" if found["partitioned"] else "unpartitioned"
    click.echo(
        f"{before}{found['name']} ({kind}; blind indexes of {found['index_bits']} bits; suite {found['suite']}; "
        f"{found['data_keys']:,} data key{'' if found['data_keys'] == 1 else 's'}; made {found['created_at']})"
    )


def _print_table(found: list[dict[str, Any]]) -> None:
    from proxy.cli.tables import new_table, show

    table = new_table("keyring", "partitioned", "index bits", "suite", "data keys", "made")
    for one in found:
        table.add_row(
            one["name"],
            "yes" if one["partitioned"] else "no",
            str(one["index_bits"]),
            str(one["suite"]),
            f"{one['data_keys']:,}",
            one["created_at"],
        )
    show(table)
