"""`keyside provider bench`: what the back end gives, as the sidecar would ask it."""

import json
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from proxy.cli.failure import Failure
from proxy.cli.options import config_option, json_option
from proxy.cli.provider.opened import with_provider
from proxy.exits import Exit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from providers import Provider
    from proxy.pacing import Operation, Pace

OPERATIONS: "tuple[Operation, Operation]" = ("wrap", "unwrap")


@click.command(short_help="Measure wraps and unwraps a second.")
@config_option
@json_option
@click.option("--seconds", type=click.FloatRange(0.1, 3600), default=5.0, show_default=True, help="For each operation.")
@click.option(
    "--concurrency",
    type=click.IntRange(1, 1024),
    show_default="hsm.performance.connectionPoolSize",
    help="Calls at once.",
)
def bench(config_path: Path, as_json: bool, seconds: float, concurrency: int | None) -> None:
    """Measure wraps, then unwraps a second, with as many calls at once as the pool has connections.

    Every call is a real one: where the service charges for calls, it charges for these. Exits with 1 when not one call
    succeeded, or some failed.
    """
    paces = with_provider(config_path, lambda provider: _measure(provider, seconds, concurrency, quiet=as_json))
    if as_json:
        click.echo(json.dumps({"operations": {pace.operation: _document(pace) for pace in paces}}, indent=2))
    else:
        _print(paces)
    if failed := sum(sum(pace.failures.values()) for pace in paces):
        raise Failure(f"{failed} calls failed: see `keyside provider check`", Exit.FAILED)


async def _measure(provider: "Provider", seconds: float, concurrency: int | None, *, quiet: bool) -> "list[Pace]":
    from proxy.pacing import measure

    for probe in provider.probes():  # so that the first problem is the one that `check` names
        await probe.call()
    callers = concurrency or provider.describe().concurrent_calls
    paces = []
    for operation in OPERATIONS:
        with _bar(f"{operation}, {callers} at once", seconds, quiet) as advance:
            paces.append(await measure(provider, operation, callers, seconds, advance))
    return paces


@contextmanager
def _bar(label: str, seconds: float, quiet: bool) -> "Iterator[Callable[[float], None]]":
    """A progress bar on standard error, where that is a terminal; gives the function that advances it by seconds."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=quiet or not console.is_terminal) as progress:
        task = progress.add_task(label, total=seconds)
        yield lambda passed: progress.advance(task, passed)


def _document(pace: "Pace") -> dict[str, Any]:
    return {
        "callers": pace.callers,
        "seconds": round(pace.seconds, 3),
        "calls": len(pace.latencies),
        "per_second": round(pace.per_second, 1),
        "latency_seconds": {f"p{share}": pace.percentile(share) for share in (50, 95, 99)},
        "failures": dict(pace.failures),
    }


def _print(paces: "list[Pace]") -> None:
    from proxy.cli.tables import new_table, show

    table = new_table("operation", "at once", "calls/s", "p50", "p95", "p99", "calls", "failed")
    for pace in paces:
        found = (pace.percentile(share) for share in (50, 95, 99))
        times = ["" if seconds is None else f"{seconds * 1000:.2f} ms" for seconds in found]
        failed = ", ".join(f"{count:,} {kind}" for kind, count in pace.failures.items())
        row = (pace.operation, str(pace.callers), f"{pace.per_second:,.0f}", *times, f"{len(pace.latencies):,}")
        table.add_row(*row, failed or "none")
    show(table)
