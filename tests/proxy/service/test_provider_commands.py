"""`keyside provider`: what it finds, what it says to do about it, and the exit code that a script relies on."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from providers import CredentialsInvalid, Denied, HealthStatus, KeyDisabled, NotFound, Throttled, Unavailable
from proxy.exits import Exit
from tests.proxy.scripted_backend import Script, register
from tests.proxy.service.sidecar import Said, command, initialize, keyside


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    return register(monkeypatch)


@pytest.fixture
def config(home: Path, script: Script) -> Path:
    path = home / "scripted.yaml"
    path.write_text(
        "hsm: {provider: SCRIPTED, performance: {requestTimeout: 300, connectionPoolSize: 4, retryPolicy: "
        "{maxRetries: 0}}, monitoring: {cloudwatch: {enabled: true}}}\n"
    )
    return path


def provider(config: Path, *words: str, stdin: bytes = b"") -> Said:
    return command("provider", *words, "--config", config, stdin=stdin)


def checked(config: Path) -> tuple[int, dict[str, Any]]:
    """Exit code and outcome by step of `check --json`."""
    said = provider(config, "check", "--json")
    steps = json.loads(said.stdout)["steps"]
    return said.returncode, {step["title"]: step["outcome"] for step in steps}


def rows(said: Said) -> list[str]:
    """The steps of `check` as people see them."""
    words = [line.split() for line in said.stdout.decode().splitlines()]
    return [row[0] for row in words if len(row) > 1 and row[1] in ("ok", "warning", "failed", "skipped")]


STEPS = ("reach", "key", "permission", "health", "wrap", "unwrap", "binding", "latency")


def test_check_walks_every_step_and_wipes_what_it_made(config: Path, script: Script) -> None:
    said = provider(config, "check")
    assert said.returncode == 0, said.stderr
    text = said.stdout.decode()
    assert "hsm.monitoring.cloudwatch.enabled: accepted, but" in text
    assert "key [is] fine" in text
    assert "p50" in text
    assert rows(said) == ["configuration", *STEPS]
    assert text.count(" ok ") == len(STEPS)  # of the configuration the line above says that it is a warning
    assert script.asked[-1] == "close"
    document = json.loads(provider(config, "check", "--json").stdout)
    assert document["ok"]
    assert len(document["unbuilt"]) == 1
    assert 0 < document["latency_seconds"]["unwrap"]["p50"] <= document["latency_seconds"]["unwrap"]["p95"] < 0.3


def test_check_of_a_real_back_end_as_an_operator_runs_it(home: Path) -> None:
    config = initialize(home)
    done = keyside("provider", "check", "--config", config)
    assert done.returncode == 0, done.stderr
    assert b"the key that was wrapped came back" in done.stdout


@pytest.mark.parametrize(
    ("step", "error", "code", "failed", "skipped"),
    [
        ("reach", Unavailable("down"), Exit.TRY_LATER, {"reach"}, set(STEPS) - {"reach"}),
        ("reach", CredentialsInvalid("wrong PIN"), Exit.CONFIG, {"reach"}, set(STEPS) - {"reach"}),
        ("key", NotFound("no such key"), Exit.CONFIG, {"key"}, set()),
        ("permission", Denied("kms:Decrypt is missing"), Exit.DENIED, {"permission"}, set()),
        ("wrap", KeyDisabled("enable it"), Exit.CONFIG, {"wrap"}, {"unwrap", "binding", "latency"}),
        ("unwrap", Denied("no"), Exit.DENIED, {"unwrap", "binding", "latency"}, set()),
        ("key", RuntimeError("sesame"), Exit.DEFECT, {"key"}, set()),
    ],
)
def test_check_goes_on_as_far_as_it_makes_sense(
    config: Path, script: Script, step: str, error: Exception, code: int, failed: set[str], skipped: set[str]
) -> None:
    script.faults[step] = error
    found_code, outcomes = checked(config)
    assert found_code == code
    assert {title for title, outcome in outcomes.items() if outcome == "failed"} == failed
    assert {title for title, outcome in outcomes.items() if outcome == "skipped"} == skipped
    said = provider(config, "check")
    if code == Exit.DEFECT:
        assert b"sesame" not in said.stdout + said.stderr
    else:
        assert str(error).encode() in said.stdout
    first = f"keyside: {len(failed)} of {len(rows(said))} steps failed, the first: {step}\n"
    assert said.stderr.decode().endswith(first)
    if not isinstance(error, RuntimeError) and step in STEPS[:3]:
        measured = provider(config, "bench", "--seconds", "0.1")
        assert (measured.returncode, measured.stderr.decode()) == (code, f"keyside: {error}\n")


def test_refused_credentials_are_offered_once(config: Path, script: Script) -> None:
    script.faults["open"] = CredentialsInvalid("wrong PIN: 2 tries are left")
    provider(config, "check")
    assert script.asked == ["open", "close"]


def test_a_back_end_that_hangs_ends_the_walk_in_time(config: Path, script: Script) -> None:
    script.delay = 60.0
    code, outcomes = checked(config)
    assert code == Exit.TRY_LATER
    assert outcomes["reach"] == "failed"


def test_health_below_ok_is_told_apart(config: Path, script: Script) -> None:
    script.health = (HealthStatus.DEGRADED, "the key expires in 2 days")
    assert checked(config)[1]["health"] == "warning"
    assert checked(config)[0] == 0
    script.health = (HealthStatus.DOWN, "no permission to decrypt")
    assert checked(config) == (Exit.FAILED, {**dict.fromkeys(STEPS, "ok"), "health": "failed"})


def test_a_back_end_that_does_not_bind_its_wraps_is_found_out(config: Path, script: Script) -> None:
    script.binds = False
    code, outcomes = checked(config)
    assert code == Exit.FAILED
    assert outcomes["binding"] == "failed"


def test_check_with_problems_in_the_configuration(config: Path) -> None:
    config.write_text("hsm: {provider: SCRIPTED, performance: {requestTimeout: soon}}\nnonsense: 1\n")
    said = provider(config, "check", "--json")
    assert said.returncode == Exit.CONFIG
    problems = {problem["path"] for problem in json.loads(said.stdout)["problems"]}
    assert problems == {"hsm.performance.requestTimeout", "nonsense"}


def test_bench_keeps_the_pool_busy_and_counts_what_failed(config: Path, script: Script) -> None:
    script.delay = 0.02
    said = provider(config, "bench", "--seconds", "0.5", "--json")
    assert said.returncode == 0, said.stderr
    operations = json.loads(said.stdout)["operations"]
    for operation in ("wrap", "unwrap"):
        found = operations[operation]
        assert found["callers"] == 4
        assert 60 < found["per_second"] <= 4 / 0.02  # the most that four callers can get
        assert 0.02 <= found["latency_seconds"]["p50"] <= found["latency_seconds"]["p95"]
        assert found["failures"] == {}
    script.faults["unwrap"] = Throttled("slower")
    said = provider(config, "bench", "--seconds", "0.2", "--concurrency", "2")
    assert said.returncode == Exit.FAILED
    assert b"Throttled" in said.stdout
    assert b"provider check" in said.stderr


def test_bench_of_a_back_end_that_is_away(config: Path, script: Script) -> None:
    script.faults["open"] = Unavailable("nobody answers at 127.0.0.1")
    said = provider(config, "bench", "--seconds", "0.2")
    assert said.returncode == Exit.TRY_LATER
    assert said.stderr == b"keyside: nobody answers at 127.0.0.1\n"


def test_describe_gives_a_reason_for_everything_that_is_not_there(config: Path, script: Script) -> None:
    document = json.loads(provider(config, "describe", "--json").stdout)
    assert script.asked == ["close"]  # nothing was connected to
    assert {name for name, can in document["capabilities"].items() if not can} == set(document["lacks"])
    assert document["concurrent_calls"] == 4
    assert b"no test needs it" in provider(config, "describe").stdout
    provider(config, "describe", "--open")
    assert "open" in script.asked


def test_a_key_is_made_as_it_is_asked_for(config: Path, script: Script) -> None:
    words = ("--tag", "team=a=b", "--multi-region", "--administrator", "arn:a", "--user", "arn:b", "--user", "arn:c")
    said = provider(config, "key", "create", "orders", *words)
    assert said.returncode == 0, said.stderr
    assert said.stdout.startswith(b"made key/orders (AES-256)\n")
    assert b"hsm.kek" in said.stdout
    (wanted,) = script.specifications
    assert (wanted.use, wanted.tags, wanted.multi_region, wanted.extractable) == ("wrap", {"team": "a=b"}, True, False)
    assert (wanted.administrators, wanted.users) == (("arn:a",), ("arn:b", "arn:c"))
    signing = provider(config, "key", "create", "seal", "--use", "sign", "--json")
    assert json.loads(signing.stdout) == {
        "key": "key/seal",
        "algorithm": "EC-P256",
        "created_at": "2026-01-02T00:00:00+00:00",
    }
    assert provider(config, "key", "create", "x", "--tag", "nothing").returncode == Exit.USAGE


def test_a_key_is_brought_in_from_standard_input_byte_for_byte(home: Path, config: Path) -> None:
    material = bytes(range(31)) + b"\n"
    program = (
        "import sys, pytest; from tests.proxy import scripted_backend as s; from proxy.cli import run\n"
        "script = s.register(pytest.MonkeyPatch())\n"
        f"code = run(['provider', 'key', 'import', 'brought', '--config', {str(config)!r}])\n"
        "print(script.materials[0].hex() if script.materials else 'nothing'); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", program], input=material, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1].decode() == material.hex()
    for wrong in (b"", b"x" * 20_000):
        done = subprocess.run([sys.executable, "-c", program], input=wrong, capture_output=True, check=False)
        assert done.returncode == Exit.DATA
        assert done.stdout.split()[-1] == b"nothing"


def test_a_key_is_deleted_only_by_somebody_who_means_it(
    config: Path, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = provider(config, "key", "delete", "orders", stdin=b"orders\n")
    assert said.returncode == Exit.USAGE
    assert b"--yes" in said.stderr
    monkeypatch.setattr("proxy.cli.provider.keys._asks_a_person", lambda: True)
    said = provider(config, "key", "delete", "orders", stdin=b"order\n")
    assert said.returncode == Exit.DATA
    assert b"nothing was deleted" in said.stderr
    assert "delete orders" not in script.asked
    assert provider(config, "key", "delete", "orders", stdin=b"orders\n").returncode == 0
    assert script.asked.count("delete orders") == 1
    assert provider(config, "key", "delete", "orders", "--yes").returncode == 0
    assert script.asked.count("delete orders") == 2


def test_the_log_says_who_keeps_it(config: Path) -> None:
    (record,) = json.loads(provider(config, "log", "--json").stdout)
    assert (record["operation"], record["succeeded"], record["source"]) == ("Decrypt", False, "service")
    assert b"[denied]" in provider(config, "log", "--hours", "1").stdout


def test_what_a_back_end_lacks_is_said_with_its_reason(home: Path) -> None:
    config = initialize(home)
    for words in (("key", "create", "x"), ("key", "delete", "x", "--yes"), ("log",)):
        said = provider(config, *words)
        assert said.returncode == Exit.FAILED
        assert b"LOCAL does not offer this" in said.stderr
    said = provider(config, "compliance")
    assert b"nothing is claimed" in said.stdout
    assert json.loads(provider(config, "compliance", "--json").stdout)["validated_to"] is None
