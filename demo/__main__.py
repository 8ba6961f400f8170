"""The run: encrypt, look for plaintext, SIGKILL, start again, decrypt, compare."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from keyside import Client, InvalidCiphertext, KeysideError

from demo.cells import BODY_KEYRING, PEOPLE_KEYRING, Cells, context, decrypt, encrypt
from demo.people import ATTRIBUTION, SECRET, Person, TableMissingError, load
from demo.screen import SHOWN, Screen
from demo.search import SHORTEST, by_chance, found, needles
from demo.sidecar import Sidecar, SidecarError
from demo.store import Store, plain_image
from tests.servers import LAUNCHERS, launch

PROVIDERS = ("LOCAL", *LAUNCHERS)
SAMPLE_ROWS = 5


class DemoError(Exception):
    """Something did not come out as promised."""


@dataclass(frozen=True)
class Run:
    """What the steps share."""

    people: list[Person]
    sidecar: Sidecar
    store: Store
    screen: Screen

    def client(self) -> Client:
        return Client(str(self.sidecar.socket))

    def values(self) -> list[str]:
        """Every plaintext, NULLs left out."""
        cells = (person.secret(column) for person in self.people for column in SECRET)
        return [cell for cell in cells if cell is not None]

    def sample(self, cells: Cells | None = None) -> list[list[object]]:
        """A row of each of the first countries; secret columns from `cells`, or as they came."""
        rows: dict[str, list[object]] = {}
        for at, person in enumerate(self.people):
            secret = (cells[column][at] if cells else person.secret(column) for column in SHOWN)
            rows.setdefault(person.country, [person.id, person.country, *secret])
            if len(rows) == SAMPLE_ROWS:
                break
        return list(rows.values())


@contextmanager
def begin_provider(folder: Path, provider: str, screen: Screen) -> Iterator[Sidecar]:
    """A sidecar yet to be started and, unless its provider is LOCAL, the running test server of that provider."""
    if provider == "LOCAL":
        with Sidecar(folder, provider) as sidecar:
            yield sidecar
        return
    files = folder / "server"
    files.mkdir(mode=0o700)
    with ExitStack() as stack:
        with screen.step(f"start a test server for {provider}"):
            served = stack.enter_context(launch(provider, files))
        yield stack.enter_context(Sidecar(folder, served.hsm["provider"], served.hsm, served.environment))


def begin(run: Run) -> int:
    """Initialise, start, make keyrings; the sidecar's pid."""
    with run.screen.step("keyside init, keyside serve, keyside keyring create"):
        run.sidecar.init()
        pid = run.sidecar.start()
        run.sidecar.command("keyring", "create", PEOPLE_KEYRING, "--partitioned")
        run.sidecar.command("keyring", "create", BODY_KEYRING)
        run.screen.note(f"pid {pid}, provider {run.sidecar.provider}")
        run.screen.note(f"socket {run.sidecar.socket}")
    return pid


def encrypt_the_table(run: Run) -> float:
    """Fill the database; the seconds spent in the client."""
    with run.screen.step(f"encrypt {len(SECRET)} columns through the socket into SQLite"):
        with run.client() as client, run.screen.bar("encrypt", len(run.values())) as advance:
            cells, spent = encrypt(client, run.people, advance)
        run.store.write(run.people, cells)
        run.store.checkpoint()
    return spent


def look_for_plaintext(run: Run) -> int:
    """Search the files for every value that a search can decide about; how many. Raises DemoError on a find."""
    note = run.screen.note
    with run.screen.step("look for plaintext in the database's files, write-ahead log included"):
        sorted_ = needles(run.values(), (text for row in run.people for text in (row.country, row.bats, row.throws)))
        sought = len(sorted_.sought)
        control = len(found(sorted_.sought, {"unencrypted": plain_image(run.people)}))
        if control != sought:
            raise DemoError(f"the search is broken: in the unencrypted table it found {control} of {sought} values")
        files = run.store.on_disk()
        hits = len(found(sorted_.sought, files))
        expected = by_chance(sorted_.sought, sum(map(len, files.values())))
        for name, content in files.items():
            note(f"searched {name} at each of {len(content):,} bytes")
        note(f"found in the same table unencrypted: {control:,} of {sought:,} values; found here: {hits:,}")
        note(f"not sought: {len(sorted_.short):,} values under {SHORTEST} bytes (ciphertext has some by chance)")
        note(f"and {len(sorted_.in_the_open):,} that the readable column country holds as well")
        if hits:
            raise DemoError(f"{hits} plaintexts are in the files (chance explains {expected:.4f})")
    return sought


def kill_and_restart(run: Run, pid: int) -> None:
    with run.screen.step("SIGKILL, start again"):
        run.sidecar.kill()
        run.screen.note(f"pid {pid} is gone; pid {run.sidecar.start()} begins with an empty key cache")


def decrypt_the_table(run: Run, at_rest: Cells) -> tuple[Cells, float]:
    """Every secret column, compared with what went in, and the seconds spent. Raises DemoError on any difference."""
    with run.screen.step("decrypt everything and compare"):
        with run.client() as client, run.screen.bar("decrypt", len(run.values())) as advance:
            opened, spent = decrypt(client, run.people, at_rest, advance)
        for column in SECRET:
            for person, cell in zip(run.people, opened[column], strict=True):
                expected = person.secret(column)
                if cell != (None if expected is None else expected.encode()):
                    raise DemoError(f"row {person.id}, column {column}: not what went in")
        refuse_a_moved_cell(run, at_rest)
    return opened, spent


def refuse_a_moved_cell(run: Run, at_rest: Cells) -> None:
    """Open one row's cell in another row's place, which must fail. Raises DemoError when it does not."""
    cell = at_rest["weight"][0] or b""
    with run.client() as client:
        try:
            client.decrypt(BODY_KEYRING, cell, context=context("weight", run.people[1]))
        except InvalidCiphertext as refused:
            run.screen.note(f"the weight of row 1 copied into row 2: {type(refused).__name__}")
            return
    raise DemoError("a cell copied into another row was decrypted")


def tell(run: Run) -> None:
    """The whole story, step by step. Raises DemoError, SidecarError, KeysideError."""
    run.screen.rows(f"before: {len(run.people):,} persons", run.sample())
    run.screen.note(ATTRIBUTION)
    pid = begin(run)
    encrypting = encrypt_the_table(run)
    at_rest = run.store.read()
    run.screen.rows("at rest, in SQLite", run.sample(at_rest))
    sought = look_for_plaintext(run)
    kill_and_restart(run, pid)
    opened, decrypting = decrypt_the_table(run, at_rest)
    run.screen.rows("after", run.sample(opened), as_text=True)
    fields, scopes = len(run.values()), len({person.country for person in run.people}) + 1
    run.screen.total(
        f"{len(run.people):,} rows, {fields:,} fields, {scopes} data keys: encrypted in {encrypting:.2f} s "
        f"({fields / encrypting:,.0f}/s), after SIGKILL decrypted in {decrypting:.2f} s ({fields / decrypting:,.0f}/s) "
        f"and all equal; 0 of {sought:,} plaintexts on disk"
    )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__)
    parser.add_argument("--provider", choices=PROVIDERS, default="LOCAL", help="who holds the key-encryption key")
    parser.add_argument("--rows", type=int, help="only the first rows of the table, at least 2")
    return parser.parse_args()


def interrupted(number: int, frame: object) -> None:
    """SIGTERM and SIGHUP end the run as Ctrl-C does, so that the sidecar is stopped."""
    raise KeyboardInterrupt


def main() -> int:
    options = arguments()
    screen = Screen()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupted)
    try:
        people = load(options.rows)
        # in the system's own temporary folder, since a socket's path may have no more than 107 bytes
        with tempfile.TemporaryDirectory(prefix="keyside-demo-") as name:
            folder = Path(name)
            with begin_provider(folder, options.provider, screen) as sidecar, Store(folder / "people.sqlite") as store:
                tell(Run(people, sidecar, store, screen))
    except (DemoError, SidecarError, TableMissingError, KeysideError) as error:
        screen.failure(str(error))
        return 1
    except KeyboardInterrupt:
        screen.failure("interrupted; the sidecar is stopped and its folder removed")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
