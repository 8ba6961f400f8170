"""One peer's flood of misses does not keep the others waiting, at the provider nor at the keystore."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from proxy.keyring import Purpose, Scope
from proxy.keys.flights import SingleFlight
from proxy.keys.turns import FairFlights
from proxy.keystore import Keystore
from tests.proxy.backends import CountingProvider
from tests.proxy.keys.conftest import OPTIONS, MakeSidecar, Sidecar

FLOOD, OTHER, THIRD = 1001, 1002, 1003


class Broken(Exception):
    pass


def recorder(done: list[str], name: str, seconds: float = 0.0) -> Callable[[], Awaitable[None]]:
    async def work() -> None:
        await asyncio.sleep(seconds)
        done.append(name)

    return work


async def test_lines_are_served_in_turn_and_each_in_order() -> None:
    fair = FairFlights(SingleFlight(), lambda: 1)
    done: list[str] = []
    asked = [(FLOOD, f"flood {n}") for n in range(6)] + [(OTHER, f"other {n}") for n in range(3)] + [(THIRD, "third 0")]
    await asyncio.gather(*(fair.run(name, uid, 5.0, recorder(done, name)) for uid, name in asked))
    assert done[:4] == ["flood 0", "flood 1", "other 0", "third 0"] or done[:3] == ["flood 0", "other 0", "third 0"]
    assert done.index("other 2") < done.index("flood 5")
    assert [name for name in done if name.startswith("flood")] == [f"flood {n}" for n in range(6)]
    assert fair.waiting == 0


async def test_what_a_second_peer_wants_too_comes_in_the_second_peers_turn() -> None:
    fair = FairFlights(SingleFlight(), lambda: 1)
    done: list[str] = []
    flood = [asyncio.ensure_future(fair.run(n, FLOOD, 5.0, recorder(done, f"flood {n}", 0.001))) for n in range(100)]
    await asyncio.sleep(0)
    await fair.run(99, OTHER, 5.0, recorder(done, "never, the flood's own is joined"))
    assert done.index("flood 99") <= 3
    await asyncio.gather(*flood)
    assert sorted(done) == sorted(f"flood {n}" for n in range(100))


async def test_places_are_never_lost_nor_exceeded() -> None:
    fair = FairFlights(SingleFlight(), lambda: 3)
    now = most = 0

    async def work() -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.002)
        now -= 1
        if most % 2:
            raise Broken

    impatient = [asyncio.ensure_future(fair.run(("i", n), n % 5, 0.004, work)) for n in range(60)]
    cancelled = [asyncio.ensure_future(fair.run(("c", n), n % 5, 5.0, work)) for n in range(20)]
    await asyncio.sleep(0.003)
    for task in cancelled:
        task.cancel()
    await asyncio.gather(*impatient, *cancelled, return_exceptions=True)
    assert fair.given_up > 0
    for n in range(10):
        with pytest.raises(Broken):
            await fair.run(("after", n), 1, 5.0, work)
    assert (most, fair.waiting) == (3, 0)


async def test_a_flight_without_a_turn_in_time_does_nothing() -> None:
    fair = FairFlights(SingleFlight(), lambda: 1)
    done: list[str] = []
    first = asyncio.ensure_future(fair.run(1, FLOOD, 5.0, recorder(done, "first", 0.05)))
    await asyncio.sleep(0)
    await fair.run(2, OTHER, 0.01, recorder(done, "late"))
    await first
    assert done == ["first"]
    assert fair.given_up == 1
    await fair.run(2, OTHER, 0.01, recorder(done, "again"))
    assert done == ["first", "again"]


@pytest.fixture
def slow() -> CountingProvider:
    provider = CountingProvider(concurrent_calls=2)

    async def wait() -> None:
        await asyncio.sleep(0.02)

    provider.fault = wait
    return provider


async def test_a_flood_of_first_uses_does_not_starve_another_peer(
    make_sidecar: MakeSidecar, slow: CountingProvider
) -> None:
    sidecar = make_sidecar(replace(OPTIONS, patience=500), with_provider=slow)
    flood = [asyncio.ensure_future(sidecar.want_active(f"users/{n}", uid=FLOOD)) for n in range(200)]
    await asyncio.sleep(0.01)
    begun = time.monotonic()
    await sidecar.want_active("contacts", uid=OTHER)
    # 200 calls, two at a time, take 2 s; its patience is 0.5 s
    assert time.monotonic() - begun < 0.5
    assert (await sidecar.active("contacts")).scope == Scope("contacts", None)
    for task in flood:
        task.cancel()


async def test_a_flood_of_unknown_keys_does_not_starve_another_peer(
    sidecar: Sidecar, make_sidecar: MakeSidecar, store: Keystore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await sidecar.want_active("contacts")
    key = await sidecar.active("contacts", Purpose.FIELD)
    looked_up = 0
    look_up = store.key

    async def counted(key_id: int) -> object:
        nonlocal looked_up
        looked_up += 1
        return await look_up(key_id)

    monkeypatch.setattr(store, "key", counted)
    fresh = make_sidecar()
    flood = [asyncio.ensure_future(fresh.want_key(n, "contacts", uid=FLOOD)) for n in range(2000)]
    await asyncio.sleep(0)
    await fresh.want_key(key.id, "contacts", uid=OTHER)
    assert fresh.plane.contains(key.id)
    assert looked_up < 200
    await asyncio.gather(*flood)


async def test_a_key_in_the_middle_of_a_flood_comes_early_for_who_else_wants_it(
    sidecar: Sidecar, make_sidecar: MakeSidecar, slow: CountingProvider
) -> None:
    slow.fault, fault = None, slow.fault
    first = make_sidecar(with_provider=slow)
    for number in range(60):
        await first.want_active(f"users/{number}")
    keys = [await first.active(f"users/{number}") for number in range(60)]
    slow.fault = fault
    fresh = make_sidecar(with_provider=slow)
    flood = [asyncio.ensure_future(fresh.want_key(key.id, str(key.scope), uid=FLOOD)) for key in keys]
    await asyncio.sleep(0.01)
    before = slow.unwraps
    await fresh.want_key(keys[-1].id, str(keys[-1].scope), uid=OTHER)
    assert fresh.plane.contains(keys[-1].id)
    assert slow.unwraps - before < 30
    await asyncio.gather(*flood)
