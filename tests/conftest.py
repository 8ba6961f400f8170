"""What every test run says about itself, and a tripwire for the runs that native code kills."""

from __future__ import annotations

import ctypes
import importlib
import os
import platform
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MEMFD_SECRET = 447  # the system call's number on every architecture that has it
TRIPWIRE = ROOT / ".pytest_cache" / f"running{os.environ.get('PYTEST_XDIST_WORKER', '')}"  # one of each process

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
    if fallen := config.stash.get(fallen_key, None):
        header.append(f"WARNING: the run before this one died without a word while in {fallen}")
    return header


def alive(pid: str) -> bool:
    return Path("/proc", pid).exists()


def pytest_configure(config: pytest.Config) -> None:
    # A segmentation fault ends pytest before it can report. pytest's faulthandler prints the stack; the next run names
    # the test, so that nobody takes half a run for a whole one.
    if TRIPWIRE.exists():
        pid, _, test = TRIPWIRE.read_text().partition(" ")
        if test.strip() and not alive(pid):
            config.stash[fallen_key] = test.strip()
    TRIPWIRE.parent.mkdir(exist_ok=True)
    config.stash[tripwire_key] = os.open(TRIPWIRE, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)


@pytest.fixture(autouse=True)
def _tripwire(request: pytest.FixtureRequest) -> None:
    descriptor = request.config.stash[tripwire_key]
    line = f"{os.getpid()} {request.node.nodeid}\n".encode()
    os.pwrite(descriptor, line, 0)
    os.ftruncate(descriptor, len(line))


def pytest_unconfigure(config: pytest.Config) -> None:
    descriptor = config.stash.get(tripwire_key, None)
    if descriptor is not None:
        os.close(descriptor)
        TRIPWIRE.unlink(missing_ok=True)
