"""Debian's PostgreSQL and MariaDB on private sockets, run by a user without privileges when the tests run as root."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pymysql

NOBODY = "nobody"
START_SECONDS = 30.0
VERSIONS = Path("/usr/lib/postgresql")


def programs() -> Path:
    """Where the newest installed server's programs are; `scripts/prerequisites servers` installs one."""
    found = sorted(VERSIONS.glob("*/bin/postgres"), key=lambda path: int(path.parent.parent.name))
    assert found, "no PostgreSQL server: scripts/prerequisites servers"
    return found[-1].parent


def _own_folder(prefix: str) -> tuple[Path, str | None]:
    """A new folder, and the user whose it is and who runs the server; None for the one that runs the tests."""
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    if os.getuid() != 0:
        return folder, None
    account = pwd.getpwnam(NOBODY)
    os.chown(folder, account.pw_uid, account.pw_gid)
    return folder, NOBODY


@contextmanager
def postgresql() -> Iterator[Path]:
    """A server; the folder of its socket."""
    folder, user = _own_folder("ks-pg-")
    bin_, data = programs(), folder / "data"
    settings = {
        "listen_addresses": "",
        "unix_socket_directories": str(folder),
        "fsync": "off",
        "full_page_writes": "off",
        "shared_buffers": "16MB",
        "max_connections": "30",
    }

    def run(program: str, *words: str) -> None:
        subprocess.run(
            [bin_ / program, "-D", data, *words],
            user=user,
            check=True,
            cwd=folder,
            stdout=subprocess.DEVNULL,
            timeout=60,
        )

    try:
        run("initdb", "--auth=trust", "--username=test", "--encoding=UTF8", "--no-locale", "--no-sync")
        options = " ".join(f"-c {name}='{value}'" for name, value in settings.items())
        run("pg_ctl", "start", "--wait", "--silent", "--log", str(folder / "log"), "--options", options)
        try:
            yield folder
        finally:
            run("pg_ctl", "stop", "--wait", "--silent", "--mode=immediate")
    finally:
        shutil.rmtree(folder)


@contextmanager
def mariadb() -> Iterator[Path]:
    """A server with a database `test`, which its user `root` may use without a password; its socket."""
    folder, user = _own_folder("ks-my-")
    data, listening, log = folder / "data", folder / "socket", folder / "log"
    # two servers that start at once take each other's temporary tables where they share a folder for them
    path = {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin", "TMPDIR": str(folder)}
    common = ["--no-defaults", f"--datadir={data}", f"--tmpdir={folder}", "--innodb-buffer-pool-size=32M"]
    try:
        subprocess.run(
            ["mariadb-install-db", *common, "--auth-root-authentication-method=normal", "--skip-test-db"],
            user=user,
            check=True,
            cwd=folder,
            env=path,
            stdout=subprocess.DEVNULL,
            timeout=120,
        )
        command = ["mariadbd", *common, f"--socket={listening}", "--skip-networking", f"--pid-file={folder / 'pid'}"]
        command += ["--innodb-flush-log-at-trx-commit=0", "--character-set-server=utf8mb4"]
        with (
            log.open("wb") as output,
            subprocess.Popen(command, user=user, cwd=folder, env=path, stdout=output, stderr=output) as process,
        ):
            try:
                _make_database(listening, process, log)
                yield listening
            finally:
                process.kill()
    finally:
        shutil.rmtree(folder)


def _make_database(path: Path, process: subprocess.Popen[bytes], log: Path) -> None:
    """Make the database once the server listens."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(str(path)) == 0:
                break
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"MariaDB did not start:\n{log.read_text()}")
        time.sleep(0.1)
    with closing(pymysql.connect(unix_socket=str(path), user="root")) as link, link.cursor() as cursor:
        cursor.execute("CREATE DATABASE test CHARACTER SET utf8mb4")
