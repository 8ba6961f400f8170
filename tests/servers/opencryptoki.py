"""openCryptoki's software token, in namespaces of its own: `python -m tests.servers.opencryptoki FOLDER COMMAND ...`.

Its paths are compiled in and its daemon serves the whole machine, so daemon, token and whoever uses them run where
those paths are FOLDER's. The machine's own openCryptoki is neither seen nor touched, no privileges are needed beyond
user namespaces, and when the command ends everything ends.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.servers.token_administrator import TOKEN, ServedToken

ROOT: Final = Path(__file__).parents[2]
PLACES: Final = (
    "/usr/lib/x86_64-linux-gnu/opencryptoki/libopencryptoki.so.0",
    "/usr/lib/aarch64-linux-gnu/opencryptoki/libopencryptoki.so.0",
    "/usr/lib64/opencryptoki/libopencryptoki.so.0",
)
PIN: Final = "47114711"  # at most 8 characters
SO_PIN: Final = "11223344"
START_SECONDS: Final = 10.0

_FACTORY_SO_PIN: Final = "87654321"
_FACTORY_PIN: Final = "55667788"
_SYSTEM: Final = os.environ | {"PATH": f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"}


def inside(folder: Path, command: Sequence[str], **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `command` where the token is; its output is captured."""
    namespaces = ["unshare", "--mount", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if os.getuid() != 0:
        namespaces += ["--user", "--map-root-user"]
    return subprocess.run(
        [*namespaces, sys.executable, "-m", __name__, str(folder), *command],
        cwd=ROOT,
        env=_SYSTEM | environment,
        check=False,
        capture_output=True,
        text=True,
    )


@contextmanager
def serve(folder: Path) -> Iterator[ServedToken]:
    """Describe the token to a process that runs `inside`, and give it the key `keyside`."""
    library = next(place for place in PLACES if Path(place).exists())
    pin_file = folder / "pin"
    pin_file.touch(0o600)
    pin_file.write_text(PIN)
    served = ServedToken(
        {
            "provider": "THALES_HSM",
            "connection": {"libraryPath": library, "partition": TOKEN},
            "credentials": {"type": "TOKEN", "data": {"pinFile": str(pin_file)}},
        },
        library=library,
        pin=PIN,
        mac=True,
    )
    served.order("generate")
    yield served


def main() -> int:
    folder, command = Path(sys.argv[1]), sys.argv[2:]
    _cover(folder)
    with subprocess.Popen(
        ["pkcsslotd", "-f"], env=_SYSTEM, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT
    ) as daemon:
        try:
            _await_token(daemon)
            _make_token()
            return subprocess.run(command, check=False).returncode
        finally:
            daemon.send_signal(signal.SIGTERM)


def _cover(folder: Path) -> None:
    """Put FOLDER's files where openCryptoki looks for the machine's."""
    for name in ("etc", "var/swtok/TOK_OBJ", "run/lock/opencryptoki/swtok", "run/opencryptoki"):
        (folder / name).mkdir(parents=True)
    (folder / "etc/opencryptoki.conf").write_text("version opencryptoki-3.1\nslot 0\n{\nstdll = libpkcs11_sw.so\n}\n")
    (folder / "group").write_text("root:x:0:\npkcs11:x:0:root\n")  # the daemon insists on a group of that name
    for source, target in (("group", "/etc/group"), ("etc", "/etc/opencryptoki"), ("var", "/var/lib/opencryptoki")):
        _mount("--bind", str(folder / source), target)
    _mount("--bind", str(folder / "run"), "/run")
    _mount("-t", "tmpfs", "tmpfs", "/dev/shm")


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], env=_SYSTEM, check=True)


def _await_token(daemon: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while _pkcsconf("-t", check=False).returncode != 0:
        if daemon.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError("pkcsslotd does not serve: run it by hand with `pkcsslotd -f -d 5` to see why")
        time.sleep(0.02)


def _make_token() -> None:
    _pkcsconf("-I", "-c", "0", "-S", _FACTORY_SO_PIN, typed=TOKEN + "\n")
    _pkcsconf("-P", "-c", "0", "-S", _FACTORY_SO_PIN, "-n", SO_PIN)
    _pkcsconf("-u", "-c", "0", "-S", SO_PIN, "-n", _FACTORY_PIN)
    _pkcsconf("-p", "-c", "0", "-U", _FACTORY_PIN, "-n", PIN)


def _pkcsconf(*arguments: str, typed: str = "", check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["pkcsconf", *arguments], env=_SYSTEM, input=typed, capture_output=True, text=True, check=check
    )


if __name__ == "__main__":
    sys.exit(main())
