"""The management commands: what they print, how they end, and that a killed one goes on."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command
from django.db import connections
from keyside.django.living import status
from keyside.living import ColumnStatus
from keyside.testing import faults
from keyside.testing.frames import Code
from keyside.testing.server import Twin

from tests.house.tree import ROOT
from tests.orm.django.citizens.models import Citizen, Memo, PlainCitizen, created
from tests.orm.django.test_living import NAME, ROWS, fill

WHERE = "citizens.Citizen.name"
PLAINTEXT = ROWS - 5


@pytest.fixture(params=["default", "postgresql"])
def alias(request: pytest.FixtureRequest, databases: None) -> Iterator[str]:
    name: str = request.param
    with created(name, Citizen):
        fill(name)
        yield name


def run(command: str, *words: str, **options: Any) -> tuple[str, str]:
    """What a command writes to its two streams."""
    out, err = io.StringIO(), io.StringIO()
    call_command(command, *words, stdout=out, stderr=err, **options)
    return out.getvalue(), err.getvalue()


def test_a_column_with_the_commands_alone(alias: str, sidecar: Twin) -> None:
    where = [WHERE, "--database", alias]
    assert run("keyside_status", *where)[0] == f"{WHERE} (dual): 0 encrypted, 245 plaintext, 5 NULL\n"
    run("keyside_backfill", *where, "--dry-run")
    assert status(NAME, using=alias).plaintext == PLAINTEXT
    out, err = run("keyside_backfill", *where, "--batch", "90")
    assert out == ""
    assert err.startswith(f"backfill {WHERE}: [########################] 100 % 250 of 250 rows seen, 245 changed")
    assert err.count("\n") == 1
    sidecar.vault.rotate("users/2")
    assert "81 changed" in run("keyside_reencrypt", *where)[1]
    assert run("keyside_status", *where)[0].count("data key") == 3
    PlainCitizen.objects.using(alias).filter(number__lt=4).update(name_index=None)
    assert "    without name_index: 4 (keyside_backfill" in run("keyside_status", *where)[0]
    assert json.loads(run("keyside_status", *where, "--json")[0])[0]["unindexed"] == {"name_index": 4}
    run("keyside_backfill", *where)
    assert "without" not in run("keyside_status", *where)[0]


def test_outcomes_for_machines(alias: str) -> None:
    where = ["--database", alias, "--json"]
    (outcome,) = json.loads(run("keyside_backfill", WHERE, *where, verbosity=0)[0])
    assert outcome.pop("rows_per_second") > 0
    assert outcome == {
        "column": WHERE,
        "database": alias,
        "dry_run": False,
        "rows_seen": ROWS,
        "rows_changed": PLAINTEXT,
    }
    out, err = run("keyside_backfill", WHERE, *where, "--dry-run", verbosity=0)
    assert json.loads(out)[0]["rows_changed"] == 0
    assert err == ""
    born, name = json.loads(run("keyside_status", "citizens.Citizen.born", WHERE, *where)[0])
    assert (born["nulls"], born["by_data_key"], born["stage"]) == (ROWS, {}, "encrypted")
    assert (name["encrypted"], name["table"], name["keyring"]) == (PLAINTEXT, "citizens", "users")
    assert sum(name["by_data_key"].values()) == PLAINTEXT
    assert list(name["by_data_key"].values()) == sorted(name["by_data_key"].values(), reverse=True)


def test_through_a_plain_column_and_back(alias: str, monkeypatch: pytest.MonkeyPatch) -> None:
    where = ["citizens.Citizen.born", "--database", alias]
    assert "250 changed" in run("keyside_backfill", *where, "--from", "born_plain")[1]
    PlainCitizen.objects.using(alias).update(born_plain=None)
    monkeypatch.setattr("builtins.input", lambda question: "no")
    with pytest.raises(CommandError, match="nothing was decrypted"):
        run("keyside_decrypt_column", *where, "--into", "born_plain")
    assert not PlainCitizen.objects.using(alias).exclude(born_plain=None).exists()
    run("keyside_decrypt_column", *where, "--into", "born_plain", "--dry-run")
    assert not PlainCitizen.objects.using(alias).exclude(born_plain=None).exists()
    monkeypatch.setattr("builtins.input", lambda question: "yes")
    assert "250 changed" in run("keyside_decrypt_column", *where, "--into", "born_plain")[1]
    assert PlainCitizen.objects.using(alias).exclude(born_plain=None).count() == ROWS


def environment() -> dict[str, str]:
    """The project of these tests for another process. Django 6 asks every database before it runs a command."""
    return os.environ | {
        "DJANGO_SETTINGS_MODULE": "tests.orm.django.project",
        "PYTHONPATH": str(ROOT),
        "KEYSIDE_SOCKET": settings.KEYSIDE["SOCKET"],
        "TEST_SQLITE": connections["default"].settings_dict["NAME"],
        "TEST_POSTGRESQL": connections["postgresql"].settings_dict["HOST"],
        "TEST_MARIADB": connections["mariadb"].settings_dict["OPTIONS"]["unix_socket"],
    }


def test_nobody_answers(databases: None) -> None:
    command = [sys.executable, "-m", "django", "keyside_decrypt_column", WHERE]
    done = subprocess.run(command, env=environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 1
    assert "nothing was decrypted; --no-input goes on" in done.stderr


@pytest.mark.parametrize(
    ("command", "words", "told"),
    [
        ("keyside_status", ["nobody"], "nobody"),
        ("keyside_status", ["citizens.Citizen.region"], "no encrypted field citizens.Citizen.region"),
        ("keyside_backfill", ["citizens.Citizen", "--from", "born_plain"], "--from is for one column"),
        ("keyside_reencrypt", ["citizens.Citizen", "--state", "x"], "--state is for one column"),
        ("keyside_backfill", [WHERE, "--from", "tenants"], "no plain field 'tenants'"),
        ("keyside_backfill", [WHERE, "--batch", "0"], "batch: expected at least 1 row"),
        ("keyside_backfill", [WHERE, "--rate", "0"], "rate: expected more than 0"),
        ("keyside_backfill", ["citizens.Memo.text"], "still writes plaintext"),
        ("keyside_decrypt_column", [WHERE, "--no-input"], "still writes ciphertext"),
        ("keyside_decrypt_column", ["--no-input"], "name the columns"),
        ("keyside_reencrypt", ["citizens.Memo.text", "--context", "tenant"], "expected NAME=VALUE"),
    ],
)
def test_commands_say_what_is_wrong(databases: None, command: str, words: list[str], told: str) -> None:
    with created("default", Citizen, Memo), pytest.raises(CommandError, match=told) as caught:
        run(command, *words)
    assert caught.value.returncode == 1


def test_what_may_be_tried_again_ends_with_75(alias: str, sidecar: Twin) -> None:
    sidecar.faults.extend([faults.refuse(Code.OVERLOADED)] * 40)
    with pytest.raises(CommandError, match=r"citizens\.name.*cannot be asked now") as caught:
        run("keyside_backfill", WHERE, "--database", alias)
    assert caught.value.returncode == 75
    assert status(NAME, using=alias).plaintext == PLAINTEXT
    with connections[alias].cursor() as cursor:
        cursor.execute("ALTER TABLE citizens RENAME TO citizens_elsewhere")
    try:
        with pytest.raises(CommandError, match="citizens") as caught:
            run("keyside_status", WHERE, "--database", alias)
    finally:
        with connections[alias].cursor() as cursor:
            cursor.execute("ALTER TABLE citizens_elsewhere RENAME TO citizens")


def test_an_interrupted_command_says_that_it_goes_on(alias: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*arguments: Any, **named: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("keyside.django.management.commands.keyside_backfill.backfill", interrupt)
    with pytest.raises(CommandError, match="the same command goes on") as caught:
        run("keyside_backfill", WHERE, "--database", alias)
    assert caught.value.returncode == 130


def test_a_partition_is_told_by_an_option(databases: None, sidecar: Twin) -> None:
    with created("default", Memo):
        with connections["default"].cursor() as cursor:
            cursor.execute("INSERT INTO memos_of_tenants (text) VALUES (%s)", [b"\xc1\x01" + bytes(60)])
        with pytest.raises(CommandError, match=r"keyside\.context"):
            run("keyside_reencrypt", "citizens.Memo.text")
        with pytest.raises(CommandError, match="does not open"):
            run("keyside_reencrypt", "citizens.Memo.text", "--context", "tenant=a")
    assert {request.keyring for request in sidecar.requests} == {"memos/a"}


@pytest.mark.parametrize("state", [False, True], ids=["without-state", "with-state"])
def test_a_killed_command_goes_on(alias: str, tmp_path: Path, state: bool) -> None:
    words = [sys.executable, "-m", "django", "keyside_backfill", WHERE, "--database", alias, "--batch", "10"]
    words += ["--state", str(tmp_path / "state")] if state else []
    process = subprocess.Popen([*words, "--rate", "100"], stderr=subprocess.PIPE, env=environment())
    try:
        deadline = time.monotonic() + 30
        while not 0 < status(NAME, using=alias).encrypted < 200 and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    finally:
        process.communicate()
    halfway: ColumnStatus = status(NAME, using=alias)
    assert 0 < halfway.encrypted < PLAINTEXT
    assert halfway.encrypted + halfway.plaintext == PLAINTEXT
    done_then = dict(PlainCitizen.objects.using(alias).values_list("number", "name"))
    done = subprocess.run([*words, "--json"], capture_output=True, check=True, env=environment(), text=True)
    (outcome,) = json.loads(done.stdout)
    assert outcome["rows_changed"] == halfway.plaintext
    assert (outcome["rows_seen"] < ROWS) == state
    assert status(NAME, using=alias).encrypted == PLAINTEXT
    now = dict(PlainCitizen.objects.using(alias).values_list("number", "name"))
    kept = [number for number, held in done_then.items() if held and held.startswith("ks1.")]
    assert all(now[number] == done_then[number] for number in kept), "nothing is encrypted twice"
