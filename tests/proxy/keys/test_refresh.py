"""Keys in use are unwrapped anew before their time ends, what may serve no more is evicted, an outage is no storm."""

import asyncio
from dataclasses import replace

import pytest

from providers import Unavailable
from proxy.keyring import KeyState, Purpose
from tests.proxy.keys.conftest import OPTIONS, MakeSidecar, Sidecar

SHORT = replace(OPTIONS, ttl=100_000, refresh_ahead=0.5)


def age(sidecar: Sidecar, seconds: float) -> None:
    """As if the cached keys had been installed so much earlier."""
    for slot in sidecar.plane.slots.values():
        slot.until -= seconds


async def down() -> None:
    raise Unavailable("down")


async def test_keys_near_their_end_are_renewed(make_sidecar: MakeSidecar) -> None:
    sidecar = make_sidecar(SHORT)
    await sidecar.want_active("users/1")
    await sidecar.want_active("contacts", purpose=Purpose.INDEX)
    await sidecar.service.refresh()
    assert sidecar.provider.unwraps == 0
    before = dict(sidecar.plane.slots)
    age(sidecar, 60)
    await sidecar.service.refresh()
    assert sidecar.provider.unwraps == 2
    assert sidecar.service.stats()["refreshed"] == 2
    for key_id, slot in sidecar.plane.slots.items():
        assert (slot.key, slot.index_bits, slot.budget) == (
            before[key_id].key,
            before[key_id].index_bits,
            before[key_id].budget,
        )
        assert slot.until > before[key_id].until
    await sidecar.service.refresh()
    assert sidecar.provider.unwraps == 2


async def test_keys_past_their_end_are_swept(make_sidecar: MakeSidecar) -> None:
    sidecar = make_sidecar(SHORT)
    await sidecar.want_active("users/1")
    age(sidecar, 101)
    await sidecar.service.refresh()
    assert sidecar.plane.slots == {}
    assert sidecar.provider.unwraps == 0


@pytest.mark.parametrize("state", [KeyState.DISABLED, KeyState.DESTROYED])
async def test_a_key_disabled_elsewhere_is_evicted(make_sidecar: MakeSidecar, state: KeyState) -> None:
    sidecar = make_sidecar(SHORT)
    await sidecar.want_active("users/1")
    (key_id,) = sidecar.plane.slots
    await sidecar.store.set_state(key_id, state)
    age(sidecar, 60)
    await sidecar.service.refresh()
    assert sidecar.plane.slots == {}
    assert sidecar.provider.unwraps == 0


async def test_during_an_outage_keys_stay_and_the_provider_is_asked_less_and_less(
    make_sidecar: MakeSidecar, monkeypatch: pytest.MonkeyPatch
) -> None:
    sidecar = make_sidecar(replace(OPTIONS, ttl=3_600_000))
    await sidecar.want_active("users/1")
    age(sidecar, 3_000)
    sidecar.provider.fault = down
    now = asyncio.get_running_loop().time()
    monkeypatch.setattr("proxy.keys.service.time.monotonic", lambda: now)
    asked_at = []
    for second in range(120):
        unwraps = sidecar.provider.unwraps
        now += 1
        await sidecar.service.refresh()
        if sidecar.provider.unwraps > unwraps:
            asked_at.append(second)
    assert asked_at == [0, 1, 3, 7, 15, 31, 63]
    assert len(sidecar.plane.slots) == 1
    sidecar.provider.fault = None
    now += 100
    await sidecar.service.refresh()
    assert sidecar.service.stats()["refreshed"] == 1


async def test_refreshing_leaves_calls_free_for_requests(make_sidecar: MakeSidecar) -> None:
    sidecar = make_sidecar(SHORT)
    await asyncio.gather(*(sidecar.want_active(f"users/{number}") for number in range(50)))
    sidecar.provider.most_at_once = 0
    age(sidecar, 60)
    await sidecar.service.refresh()
    assert sidecar.service.stats()["refreshed"] == 50
    assert sidecar.provider.most_at_once == 4  # of 8


async def test_the_loop_survives_what_goes_wrong(make_sidecar: MakeSidecar, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.keys.service.TICK_SECONDS", 0.01)
    sidecar = make_sidecar(SHORT)
    await sidecar.want_active("users/1")
    sweeps = 0

    def sweep() -> int:
        nonlocal sweeps
        sweeps += 1
        raise MemoryError

    sidecar.plane.sweep = sweep  # type: ignore[method-assign]  # the fault
    loop = asyncio.ensure_future(sidecar.service.refresh_loop())
    await asyncio.sleep(0.1)
    assert sweeps > 2
    loop.cancel()
    with pytest.raises(asyncio.CancelledError):
        await loop


async def test_other_options_apply_from_now_on(sidecar: Sidecar) -> None:
    await sidecar.want_active("users/1")
    sidecar.service.reconfigure(replace(OPTIONS, ttl=1, lease=7, negative_ttl=9))
    await sidecar.want_active("users/2")
    await sidecar.want_key(3, "users/2")
    budgets = {slot.scope: slot.budget for slot in sidecar.plane.slots.values()}
    assert budgets == {"users/1": 1_000, "users/2": 7}
    assert ("refuse_key", 3, "users/2", 19, 9) in sidecar.plane.log
