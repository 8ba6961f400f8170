"""`keyside provider log` and `compliance`: what the back end recorded, and what may be claimed of it."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from proxy.cli.options import config_option, json_option
from proxy.cli.provider.opened import offered, with_provider

if TYPE_CHECKING:
    from providers import AuditRecord, ComplianceInfo, Provider


@click.command(short_help="Show the back end's own record of what was done with its keys.")
@config_option
@json_option
@click.option("--hours", type=click.FloatRange(0, 24 * 366, min_open=True), default=24.0, show_default=True)
@click.option("--limit", type=click.IntRange(1, 100_000), default=100, show_default=True)
def log(config_path: Path, as_json: bool, hours: float, limit: int) -> None:
    """Show what the service or device recorded in the last hours, oldest first.

    Where it gives no record, what is shown is that of the process that asks (source: sidecar): of this command alone.
    """
    from providers import Capability, KeepsAuditLogs

    until = datetime.now(UTC)

    async def read(provider: "Provider") -> "Sequence[AuditRecord]":
        keeper: KeepsAuditLogs = offered(provider, KeepsAuditLogs, Capability.AUDIT_LOGS)
        await provider.initialize()
        return await keeper.get_audit_logs(until - timedelta(hours=hours), datetime.now(UTC), limit)

    records = with_provider(config_path, read)
    if as_json:
        click.echo(json.dumps([_document(record) for record in records], indent=2))
        return
    from proxy.cli.tables import new_table, show

    table = new_table("at", "operation", "caller", "result", "source", "details")
    for record in records:
        details = ", ".join(f"{name} {value}" for name, value in record.details.items())
        result = "ok" if record.succeeded else "failed"
        at = record.at.isoformat(timespec="milliseconds")
        table.add_row(at, record.operation, record.caller, result, record.source, details)
    show(table)


def _document(record: "AuditRecord") -> dict[str, object]:
    return {
        "at": record.at.isoformat(),
        "operation": record.operation,
        "caller": record.caller,
        "succeeded": record.succeeded,
        "source": record.source,
        "details": dict(record.details),
    }


@click.command(short_help="Show what may be claimed of the place where the keys live.")
@config_option
@json_option
def compliance(config_path: Path, as_json: bool) -> None:
    """Show where the key-encryption key lives, what that place is validated to, and the limits of such claims."""
    from providers import Capability, ReportsCompliance

    async def ask(provider: "Provider") -> "ComplianceInfo":
        reporter: ReportsCompliance = offered(provider, ReportsCompliance, Capability.COMPLIANCE_INFO)
        await provider.initialize()
        return await reporter.get_compliance_info()

    found = with_provider(config_path, ask)
    if as_json:
        from dataclasses import asdict

        click.echo(json.dumps(asdict(found), indent=2, default=str))
        return
    from proxy.cli.tables import new_table, show

    table = new_table()
    table.add_row("keys are in", found.key_storage)
    table.add_row("validated to", found.validated_to or "nothing is claimed")
    table.add_row("extractable", "yes" if found.extractable else "no")
    table.add_row("mechanisms", ", ".join(found.mechanisms))
    for note in found.notes:
        table.add_row("", note)
    show(table)
