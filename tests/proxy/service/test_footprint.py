"""What a sidecar costs while nobody asks it anything."""

import subprocess
import sys
from pathlib import Path

from proxy.footprint import Mapping, clean_file_mappings
from tests.proxy.service.sidecar import Sidecar, environment, initialize, running

SMAPS = """\
555500000000-555500001000 r-xp 00000000 08:01 10 /usr/lib/libclean.so
Rss:                  64 kB
Anonymous:             0 kB
VmFlags: rd ex
555500010000-555500012000 r--p 00000000 08:01 10 /usr/lib/relocated.so
Rss:                   8 kB
Anonymous:             4 kB
555500020000-555500021000 rw-p 00000000 08:01 10 /usr/lib/data.so
Anonymous:             0 kB
555500030000-555500031000 r--p 00000000 00:00 0
Anonymous:             0 kB
555500040000-555500041000 r-xp 00000000 00:00 0                          [vdso]
Anonymous:             0 kB
555500050000-555500053000 r--p 00000000 08:01 10 /usr/lib/with a space.so
Anonymous:             0 kB
555500060000-555500061000 rw-s 00000000 00:01 10 /secretmem (deleted)
Anonymous:             0 kB
"""


def resident(sidecar: Sidecar) -> int:
    lines = Path(f"/proc/{sidecar.process.pid}/status").read_text().splitlines()
    (kibibytes,) = [int(line.split()[1]) for line in lines if line.startswith("VmRSS:")]
    return kibibytes * 1024


def test_idle_and_after_some_use_it_stays_under_80_megabytes(home: Path) -> None:
    with running(initialize(home), execute=True) as sidecar:
        assert resident(sidecar) < 80_000_000
        sidecar.run("keyring", "create", "contacts")
        for _ in range(5):
            sidecar.post("/v1/encrypt", {"keyring": "contacts", "items": ["YQ=="]})
            sidecar.ask("GET", "/metrics")
            sidecar.ask("GET", "/v1/status")
        assert resident(sidecar) < 80_000_000


def test_only_clean_unwritable_files_are_given_back() -> None:
    assert list(clean_file_mappings(SMAPS)) == [
        Mapping(0x555500000000, 0x1000, "/usr/lib/libclean.so"),
        Mapping(0x555500050000, 0x3000, "/usr/lib/with"),
    ]


def test_serving_loads_nothing_that_only_people_or_migrations_need() -> None:
    code = (
        "import sys, proxy.cli.serve, proxy.assembly, providers.local; "
        "print([name for name in ('rich', 'alembic', 'prometheus_client', 'pytest') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, env=environment())
    assert done.stdout == b"[]\n"
