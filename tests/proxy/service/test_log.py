"""Log lines: one each, structured, and nothing of an exception but what is known to be harmless."""

import io
import json
import logging

import pytest

from proxy import log
from proxy.startup import StartupError


def lines(form: log.Format, level: str = "debug") -> io.StringIO:
    stream = io.StringIO()
    log.configure(level, form, stream)
    return stream


def fail(secret: str) -> Exception:
    try:
        try:
            raise KeyError(secret)
        except KeyError as inner:
            raise ValueError(f"cannot use {secret}") from inner
    except ValueError as error:
        return error


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_defect_tells_where_and_not_what(form: log.Format) -> None:
    stream = lines(form)
    correlation = log.defect("answering failed", fail("hunter2"))
    (line,) = stream.getvalue().splitlines()
    assert correlation in line
    for word in ("ValueError", "KeyError", "test_log.py", ":fail"):
        assert word in line
    assert "hunter2" not in line


def test_messages_of_our_own_errors_are_shown() -> None:
    assert log.describe(StartupError("stop it first", 75)) == "StartupError: stop it first"  # type: ignore[arg-type]  # any number
    assert log.describe(PermissionError(13, "Permission denied", "/secret")) == "PermissionError: Permission denied"
    assert log.describe(ValueError("hunter2")) == "ValueError"


def test_fields_cannot_forge_lines() -> None:
    stream = lines("text")
    log.event(logging.INFO, "made\nerror forged", name="a b\n2026 error forged", plain="x")
    (line,) = stream.getvalue().splitlines()
    assert line.endswith(' info "made\\nerror forged" name="a b\\n2026 error forged" plain=x')


def test_json_has_the_fields_as_members() -> None:
    stream = lines("json")
    log.event(logging.WARNING, "low", limit=8, level="theirs")
    parsed = json.loads(stream.getvalue())
    assert (parsed["level"], parsed["message"], parsed["limit"]) == ("warning", "low", 8)


def test_other_peoples_loggers_stay_quiet_at_every_level() -> None:
    stream = lines("text", "debug")
    logging.getLogger("botocore.parsers").debug("Plaintext: hunter2")
    logging.getLogger("sqlalchemy.engine").info("parameters: hunter2")
    logging.getLogger("aiohttp.server").error("bad line: hunter2")
    assert stream.getvalue() == ""
    logging.getLogger("providers.local").debug("opened")
    assert "opened" in stream.getvalue()


def test_a_wrong_call_prints_its_format_and_not_its_arguments() -> None:
    stream = lines("text")
    logging.getLogger("proxy.keys").info("no place for it", "hunter2")
    assert "hunter2" not in stream.getvalue()
    assert "no place for it" in stream.getvalue()


def test_traces_of_others_get_a_correlation_id() -> None:
    stream = lines("json")
    logging.getLogger("proxy.keys").error("defect", exc_info=fail("hunter2"))
    assert len(json.loads(stream.getvalue())["correlation"]) == 12
