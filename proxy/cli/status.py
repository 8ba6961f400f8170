"""`keyside status`: the running sidecar at a glance."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from proxy.cli.admin_client import ask
from proxy.cli.options import config_option, json_option, read_sockets
from proxy.startup import size


@click.command()
@config_option
@json_option
def status(config_path: Path, as_json: bool) -> None:
    """Show what the running sidecar does: keys, locked memory, rates, latency."""
    found = ask(read_sockets(config_path).admin, "GET", "/v1/status")
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        _print(found)


def _print(found: dict[str, Any]) -> None:
    from proxy.cli.tables import new_table, show

    table = new_table()
    for name, text in _rows(found):
        table.add_row(name, text)
    show(table)
    operations = new_table("operation", "requests/s", "items/s", "requests", "items")
    recent = found["recent"]["operations"]
    for name, counts in found["operations"].items():
        rates = recent[name]
        operations.add_row(
            name,
            f"{rates['requests_per_second']:,.1f}",
            f"{rates['items_per_second']:,.1f}",
            f"{counts['requests']:,}",
            f"{counts['items']:,}",
        )
    click.echo()
    show(operations)
    for warning in found["warnings"]:
        click.echo(f"warning: {warning}")


def _rows(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    memory, keys, recent = found["memory"], found["keys"], found["recent"]
    yield (
        "sidecar",
        f"{found['version']}, pid {found['pid']}, {found['state']} for {_duration(found['uptime_seconds'])}",
    )
    yield "provider", f"{found['provider']['name']}, key {found['provider']['kek'] or 'not opened yet'}"
    pool = found["provider"]["pool"]
    yield (
        "provider calls",
        f"{pool['active']:,} under way of {pool['size']:,}, {pool['idle']:,} idle, {pool['waiting']:,} waiting",
    )
    for part, health in found["health"].items():
        detail = "" if health["status"] == "ok" or not health["detail"] else f": {health['detail']}"
        yield f"{part} health", f"{health['status'].upper()}{detail}"
    yield "keys cached", f"{keys['cached']:,} of {keys['capacity']:,}"
    limit = "no limit" if memory["limit_bytes"] is None else f"limit {size(memory['limit_bytes'])}"
    yield (
        "locked memory",
        f"{size(memory['locked_bytes'])} ({memory['kind']}, {limit}); resident {size(memory['resident_bytes'])}",
    )
    yield "cache", f"{keys['hits']:,} hits, {keys['misses']:,} misses ({_percent(keys['hits'], keys['misses'])})"
    window = f"last {recent['seconds']:.0f} s"
    yield f"latency, {window}", _latency(recent["latency_seconds"])
    yield f"waited for a key, {window}", _latency(recent["waited_latency_seconds"])
    connections = found["connections"]
    yield "connections", f"{connections['open']:,} open, {connections['http']:,} of them HTTP"
    failed = ", ".join(f"{count:,} {name}" for name, count in found["errors"].items() if count)
    yield "errors", failed or "none"


def _latency(found: dict[str, Any]) -> str:
    if not found["count"]:
        return "no requests"
    return f"p50 {_time(found['p50'])}, p99 {_time(found['p99'])} ({found['count']:,} requests)"


def _time(seconds: float) -> str:
    for unit, scale in (("us", 1e6), ("ms", 1e3)):
        if seconds * scale < 1000:
            return f"{seconds * scale:.1f} {unit}"
    return f"{seconds:.2f} s"


def _percent(hits: int, misses: int) -> str:
    return f"{100 * hits / (hits + misses):.1f} % hits" if hits + misses else "no requests"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (rest, "s")]
    said = [f"{count} {unit}" for count, unit in parts if count]
    return " ".join(said[:2]) or "0 s"
