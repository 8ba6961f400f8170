"""`keyside provider check`: whether the configured back end will do what the sidecar needs, and what to fix."""

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from proxy.cli.failure import Failure
from proxy.cli.options import config_option, json_option, problem_lines
from proxy.cli.provider.opened import exit_of
from proxy.exits import Exit

if TYPE_CHECKING:
    from proxy.config import Config
    from proxy.trial import Step

_COLOURS = {"ok": "green", "warning": "yellow", "failed": "bold red", "skipped": "dim"}


@click.command(short_help="Try the configured back end out, and say what to fix.")
@config_option
@json_option
def check(config_path: Path, as_json: bool) -> None:
    """Walk configuration, credentials, reachability, permissions, a wrap and unwrap round trip, and latency.

    Uses a random key of its own and changes nothing in the back end. Goes on after a failed step as far as that makes
    sense, and says of each what to fix.

    \b
    Exit codes, of the first step that failed:
      0   every step passed (warnings are no failures)
      75  the back end cannot be reached, throttles or does not answer in time
      77  the credentials are good, and may not do this
      78  configuration, credentials or the key-encryption key
      1   anything else, such as a wrap that does not authenticate
    """
    from proxy import log
    from proxy.config import ConfigError, load

    log.configure("error" if as_json else "warning", "text")
    try:
        config = load(config_path)
    except ConfigError as error:
        if as_json:
            click.echo(json.dumps(_refused(error), indent=2))
        raise Failure("\n".join(problem_lines(config_path, error)), Exit.CONFIG) from error
    unbuilt = config.unbuilt()
    steps, latency = asyncio.run(_walk(config))
    failed = next((step for step in steps if step.outcome == "failed"), None)
    if as_json:
        click.echo(json.dumps(_document(config, unbuilt, steps, latency), indent=2))
    else:
        _print(config_path, config, unbuilt, steps)
    if failed is not None:
        count, rows = sum(step.outcome == "failed" for step in steps), len(steps) + 1  # one is the configuration
        assert failed.error is not None
        raise Failure(f"{count} of {rows} steps failed, the first: {failed.title}", exit_of(failed.error))


async def _walk(config: "Config") -> "tuple[list[Step], dict[str, dict[str, float]]]":
    from providers import create
    from proxy.trial import Trial

    provider = create(config.hsm, config.base)
    trial = Trial(provider)
    try:
        return [step async for step in trial.steps()], trial.latency
    finally:
        await provider.close()


def _refused(error: Any) -> dict[str, object]:
    problems = [{"path": problem.path, "message": problem.message} for problem in error.problems]
    return {"ok": False, "provider": None, "problems": problems, "unbuilt": [], "steps": [], "latency_seconds": {}}


def _document(
    config: "Config", unbuilt: list[str], steps: "list[Step]", latency: dict[str, dict[str, float]]
) -> dict[str, object]:
    return {
        "ok": all(step.outcome != "failed" for step in steps),
        "provider": config.hsm["provider"],
        "problems": [],
        "unbuilt": unbuilt,
        "steps": [
            {"title": step.title, "outcome": step.outcome, "detail": step.detail, "seconds": round(step.seconds, 6)}
            for step in steps
        ],
        "latency_seconds": latency,
    }


def _print(config_path: Path, config: "Config", unbuilt: list[str], steps: "list[Step]") -> None:
    from rich.text import Text

    from proxy.cli.tables import new_table, show

    table = new_table("step", "result", "took", "what was found, or what to fix")
    found = f"{config_path}: provider {config.hsm['provider']}"
    table.add_row(
        "configuration", Text("warning" if unbuilt else "ok", _COLOURS["warning" if unbuilt else "ok"]), "", found
    )
    for line in unbuilt:
        table.add_row("", "", "", Text(line))
    for step in steps:
        took = f"{step.seconds * 1000:.1f} ms" if step.outcome != "skipped" else ""
        table.add_row(step.title, Text(step.outcome, _COLOURS[step.outcome]), took, Text(step.detail))
    show(table)
