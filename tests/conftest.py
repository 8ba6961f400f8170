"""What every test run says about itself, and a tripwire for the runs that native code kills."""

from __future__ import annotations

import ctypes
import importlib
import os
import platform
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MEMFD_SECRET = 447  # the system call's number on every architecture that has it
TRIPWIRES = ROOT / ".pytest_cache"  # a file for each process that runs tests: pytest, or each worker of pytest-xdist

fallen_key = pytest.StashKey[str]()
tripwire_key = pytest.StashKey[int]()


def native() -> str:
    """The release of the OpenSSL inside the built extension, read from its bytes: it has no other face."""
    built = sorted((ROOT / "fastpath").glob("aead.*.so"))
    if not built:
        return "not built"
    found = re.search(rb"\0(\d+\.\d+\.\d+)\0", built[0].read_bytes())
    return f"OpenSSL {found[1].decode()}" if found else "no OpenSSL inside"


def secret_memory() -> str:
    """Whether this kernel has memfd_secret(2); where it has not, the arena is locked anonymous memory."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.syscall(MEMFD_SECRET, 0)
    if descriptor < 0:
        return f"none ({os.strerror(ctypes.get_errno())})"
    os.close(descriptor)
    return "available"


def version(module: str) -> str:
    try:
        return str(getattr(importlib.import_module(module), "__version__", "without a version"))
    except ImportError:
        return "missing"


def pytest_report_header(config: pytest.Config) -> list[str]:
    header = [
        f"keyside: native {native()}; memfd_secret {secret_memory()}; "
        f"sanitizers {'on' if os.environ.get('KEYSIDE_SANITIZED') else 'off'}",
        f"kernel {platform.release()}, {len(os.sched_getaffinity(0))} CPUs, uid {os.getuid()}",
        ", ".join(
            f"{name} {version(name)}" for name in ("cryptography", "msgpack", "sqlalchemy", "aiohttp", "pydantic")
        ),
    ]
    if tests := config.stash.get(fallen_key, None):
        header.append(f"WARNING: a run before this one died without a word while in {tests}")
    return header


def fallen() -> Iterator[str]:
    """The tests in which processes died; their tripwires are taken away."""
    for tripwire in TRIPWIRES.glob("running-*"):
        # the process of another run may be about to end, and take its tripwire with it
        with suppress(FileNotFoundError):
            if not Path("/proc", tripwire.name.partition("-")[2]).exists():
                yield tripwire.read_text()
                tripwire.unlink()


def tripwire() -> Path:
    return TRIPWIRES / f"running-{os.getpid()}"


def pytest_configure(config: pytest.Config) -> None:
    # A segmentation fault ends pytest before it can report. pytest's faulthandler prints the stack; the next run names
    # the test, so that nobody takes half a run for a whole one.
    TRIPWIRES.mkdir(exist_ok=True)
    if not hasattr(config, "workerinput"):  # pytest-xdist's workers leave the report to the process that started them
        config.stash[fallen_key] = ", ".join(filter(None, fallen()))
    config.stash[tripwire_key] = os.open(tripwire(), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)


@pytest.fixture(autouse=True)
def _tripwire(request: pytest.FixtureRequest) -> None:
    descriptor = request.config.stash[tripwire_key]
    line = request.node.nodeid.encode()
    os.pwrite(descriptor, line, 0)
    os.ftruncate(descriptor, len(line))


def pytest_unconfigure(config: pytest.Config) -> None:
    descriptor = config.stash.get(tripwire_key, None)
    if descriptor is not None:
        os.close(descriptor)
        tripwire().unlink(missing_ok=True)
