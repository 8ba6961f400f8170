"""The services of back ends, started to be measured: each can be slowed by a set time, and frozen."""

from __future__ import annotations

import copy
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from tests.servers import Served, aws, azure, gcp, openbao
from tests.servers.mishap import mishap


@dataclass(frozen=True)
class Service:
    """A running service and the sections of its providers."""

    provider: str
    served: Served
    slowed_hsm: dict[str, Any]  # the way to it that `slow` makes slow; the same as `served.hsm` where all ways are
    slow: Callable[[float], object]  # from now on each call takes the service so many seconds, its work included
    processes: set[int]

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """While it lasts the kernel takes connections and bytes, and nobody answers."""
        for process in self.processes:
            os.kill(process, signal.SIGSTOP)
        try:
            yield
        finally:
            for process in self.processes:
                os.kill(process, signal.SIGCONT)


@contextmanager
def service(provider: str, folder: Path) -> Iterator[Service]:
    """Start what `provider` speaks to, with its files in `folder`."""
    before = children()
    with ExitStack() as running:
        served = running.enter_context(STARTING[provider](folder))
        if provider in DELAYING:
            yield Service(provider, served, served.hsm, partial(DELAYING[provider], served), children() - before)
            return
        endpoint: str = served.hsm["connection"]["endpoint"]
        proxy = running.enter_context(mishap(int(endpoint.rpartition(":")[2])))
        hsm = copy.deepcopy(served.hsm)
        hsm["connection"]["endpoint"] = f"{endpoint.rpartition(':')[0]}:{proxy.port}"
        yield Service(provider, served, hsm, proxy.last, children() - before)


def children() -> set[int]:
    """The processes that this one has started and that run."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                status = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it has just ended
            if int(status[1]) == os.getpid():
                found.add(int(entry.name))
    return found


STARTING: Final[Mapping[str, Callable[[Path], AbstractContextManager[Served]]]] = {
    "AWS_KMS": partial(aws.serve, engine="fake"),
    "AZURE_KEY_VAULT": azure.serve,
    "GCP_KMS": gcp.serve,
    "VAULT_TRANSIT": openbao.serve,
}
"""Those that are reached over a network. moto and MiniStack take milliseconds of CPU a call: AWS has a quick fake."""

DELAYING: Final[Mapping[str, Callable[[Any, float], object]]] = {
    "AZURE_KEY_VAULT": lambda served, seconds: served.do("latency", seconds=seconds),
    "GCP_KMS": lambda served, seconds: served.order("latency", seconds=seconds),
}
"""Those that can be late by themselves; before the others a proxy holds answers back."""
