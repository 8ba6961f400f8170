"""`keyside provider key`: keys inside the back end, made, brought in and destroyed by people."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from proxy.cli.failure import Failure
from proxy.cli.options import config_option, json_option
from proxy.cli.provider.opened import offered, with_provider
from proxy.exits import Exit

if TYPE_CHECKING:
    from providers import KeyReference, KeySpecification, Provider

Command = TypeVar("Command", bound=Callable[..., Any])

MAX_MATERIAL_BYTES: Final = 16_384  # an RSA-4096 private key in PKCS #8 is 2.4 KB
_ALGORITHMS: Final = {"wrap": "AES-256", "sign": "EC-P256"}


@click.group()
def key() -> None:
    """Make, bring in and destroy keys of the configured back end."""


def _specification_options(command: Command) -> Command:
    for option in (
        click.option("--user", "users", multiple=True, help="Who may use it, by the service's names. Again for more."),
        click.option("--administrator", "administrators", multiple=True, help="Who may manage it. Again for more."),
        click.option("--multi-region", is_flag=True, help="May be replicated to other regions."),
        click.option("--tag", "tags", multiple=True, metavar="NAME=VALUE", help="Again for more."),
        click.option("--algorithm", help="The back end's name for it.  [default: AES-256, or EC-P256 to sign]"),
        click.option("--use", type=click.Choice(["wrap", "sign"]), default="wrap", show_default=True),
        click.argument("name"),
    ):
        command = option(command)
    return command


@key.command(short_help="Make a key that never leaves the back end.")
@_specification_options
@config_option
@json_option
def create(config_path: Path, as_json: bool, **wanted: Any) -> None:
    """Make the key NAME. It is not extractable, and managed by whoever makes it where nobody else is named."""
    from providers import Capability, GeneratesKeys

    specification = _specification(**wanted)

    async def make(provider: "Provider") -> "KeyReference":
        maker: GeneratesKeys = offered(provider, GeneratesKeys, Capability.GENERATE_KEY)
        return await maker.generate_key(specification)

    _report("made", with_provider(config_path, make), specification, as_json)


@key.command(name="import", short_help="Bring in a key that was made elsewhere.")
@_specification_options
@config_option
@json_option
def import_(config_path: Path, as_json: bool, **wanted: Any) -> None:
    """Bring in key material as NAME, from standard input byte for byte (AES-256: 32 bytes).

    Whoever has a copy of it can unwrap every data key that is wrapped under it.
    """
    from providers import Capability, ImportsKeys
    from providers.wiping import wipe

    specification = _specification(**wanted)
    material = _material()

    async def bring(provider: "Provider") -> "KeyReference":
        importer: ImportsKeys = offered(provider, ImportsKeys, Capability.IMPORT_KEY)
        return await importer.import_key(specification, material)

    try:
        reference = with_provider(config_path, bring)
    finally:
        wipe(material)
    _report("imported", reference, specification, as_json)


@key.command(short_help="Destroy a key, or schedule that.")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask for the name again.")
@config_option
def delete(name: str, yes: bool, config_path: Path) -> None:
    """Destroy the key NAME; where the service insists on a delay, schedule its destruction.

    Every data key that is wrapped under it, and everything encrypted under those, is lost with it.
    """
    from providers import Capability, DeletesKeys

    async def destroy(provider: "Provider") -> None:
        deleter: DeletesKeys = offered(provider, DeletesKeys, Capability.DELETE_KEY)
        if not yes:
            _confirm(name)
        await deleter.delete_key(name)

    with_provider(config_path, destroy)
    click.echo(f"{name} is destroyed, or will be after the delay that the service insists on")


def _confirm(name: str) -> None:
    click.echo(f"Every data key that is wrapped under {name} is lost with it.", err=True)
    if not _asks_a_person():
        raise Failure("nothing was deleted: --yes says that it is meant where nobody can be asked", Exit.USAGE)
    if click.prompt("Type the name of the key again to destroy it", err=True) != name:
        raise Failure("that is another name: nothing was deleted", Exit.DATA)


def _asks_a_person() -> bool:
    return sys.stdin.isatty()


def _specification(
    name: str,
    use: Any,
    algorithm: str | None,
    tags: tuple[str, ...],
    multi_region: bool,
    administrators: tuple[str, ...],
    users: tuple[str, ...],
) -> "KeySpecification":
    from providers import KeySpecification

    pairs = [tag.partition("=") for tag in tags]
    if not all(label and separator for label, separator, _ in pairs):
        raise click.UsageError("a tag is NAME=VALUE")
    return KeySpecification(
        label=name,
        use=use,
        algorithm=algorithm or _ALGORITHMS[use],
        tags={label: value for label, _, value in pairs},
        multi_region=multi_region,
        administrators=administrators,
        users=users,
    )


def _material() -> bytearray:
    if _asks_a_person():
        raise Failure("key material comes from standard input: < FILE, or from a pipe", Exit.USAGE)
    material = bytearray(MAX_MATERIAL_BYTES + 1)
    # unbuffered: a buffer of Python's would keep a copy
    size = 0
    with open(sys.stdin.fileno(), "rb", buffering=0, closefd=False) as raw:
        while size < len(material) and (read := raw.readinto(memoryview(material)[size:])):
            size += read
    if not 0 < size <= MAX_MATERIAL_BYTES:
        raise Failure(f"standard input must hold the key, 1 to {MAX_MATERIAL_BYTES} bytes", Exit.DATA)
    del material[size:]
    return material


def _report(done: str, reference: "KeyReference", specification: "KeySpecification", as_json: bool) -> None:
    if as_json:
        made = reference.created_at.isoformat() if reference.created_at else None
        document = {"key": reference.key, "algorithm": reference.algorithm, "created_at": made}
        click.echo(json.dumps(document, indent=2))
        return
    click.echo(f"{done} {reference.key} ({reference.algorithm})")
    if specification.use == "wrap":
        click.echo("to wrap data keys with it, name it as hsm.kek and reload the sidecar")
