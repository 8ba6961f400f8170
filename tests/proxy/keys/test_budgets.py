"""Leases grow with the load, keys rotate before they are spent with nobody waiting, and nothing is granted twice."""

import asyncio
import tempfile
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastpath.dataplane import LowBudget
from providers import Unavailable
from proxy.keyring import KeyState, Scope
from proxy.keys.leases import REMEMBERED, LeaseSizes
from proxy.keystore import Keystore
from tests.proxy.backends import CountingProvider
from tests.proxy.keys.conftest import OPTIONS, MakeSidecar, Sidecar


async def low(sidecar: Sidecar, scope: str) -> None:
    """The plane tells that half of the last lease of the scope's active key is gone."""
    await sidecar.service.handle(LowBudget("low", 0, sidecar.plane.active[scope, 0], scope))


async def test_leases_double_while_they_are_spent_quickly(sidecar: Sidecar) -> None:
    await sidecar.want_active("users/1")
    for _ in range(2):
        await low(sidecar, "users/1")
    grants = [entry[2] for entry in sidecar.plane.log if entry[0] in ("activate", "add_budget")]
    assert grants == [1_000, 2_000, 4_000]
    assert (await sidecar.active("users/1")).messages_leased == 7_000
    assert sidecar.plane.completed == [301]  # nobody waited for a low budget


def test_block_sizes() -> None:
    now = 0.0
    sizes, scope = LeaseSizes(clock=lambda: now), Scope("users")
    taken = []
    for pause in (0, 1, 1, 9.9, 1, 10, 10, 9):
        now += pause
        taken.append(sizes.next(scope, 100, 900))
        assert sizes.next(scope, 100, 900) == taken[-1]  # asking alone changes nothing
        sizes.granted(scope, taken[-1])
    assert taken == [100, 200, 400, 800, 900, 900, 900, 900]
    assert sizes.next(Scope("other"), 100, 900) == 100


def test_remembered_block_sizes_are_bounded() -> None:
    sizes = LeaseSizes()
    for number in range(REMEMBERED + 10):
        sizes.granted(Scope("users", str(number)), 5)
    assert len(sizes._last) == REMEMBERED


async def test_a_request_larger_than_a_lease_gets_enough(sidecar: Sidecar) -> None:
    await sidecar.want_active("users/1", wanted=5_000)
    (key_id,) = sidecar.plane.active.values()
    assert sidecar.plane.slots[key_id].budget == 5_000
    await sidecar.want_active("users/1", wanted=4_500)
    assert sidecar.plane.slots[key_id].budget >= 9_500


async def test_a_spent_key_is_replaced_for_who_waits(sidecar: Sidecar) -> None:
    await sidecar.want_active("users/1", wanted=9_000)
    first = await sidecar.active("users/1")
    await sidecar.want_active("users/1", wanted=2_000)  # 1,000 are left
    second = await sidecar.active("users/1")
    assert second.id != first.id
    assert sidecar.plane.active == {("users/1", 0): second.id}
    assert sidecar.plane.slots[second.id].budget >= 2_000
    former = await sidecar.store.key(first.id)
    assert former is not None
    assert former.state is KeyState.DECRYPT_ONLY
    assert first.id in sidecar.plane.slots  # and still decrypts


async def test_a_fresh_key_takes_over_before_the_old_one_is_spent(sidecar: Sidecar) -> None:
    await sidecar.want_active("users/1")
    first = sidecar.plane.active["users/1", 0]
    while sidecar.plane.active["users/1", 0] == first:
        await low(sidecar, "users/1")
    assert sidecar.plane.slots[first].budget == 10_000  # the last block was handed out whole: half of one lease is left
    assert sidecar.plane.completed == [301]
    assert sidecar.service.stats()["rotations"] == 1
    assert sidecar.provider.wraps == 2
    key = await sidecar.store.key(first)
    assert key is not None
    assert (key.messages_leased, key.state) == (10_000, KeyState.DECRYPT_ONLY)


async def test_a_rotation_that_fails_is_made_up_for(sidecar: Sidecar) -> None:
    await sidecar.want_active("users/1", wanted=10_000)
    first = sidecar.plane.active["users/1", 0]

    async def down() -> None:
        raise Unavailable("down")

    sidecar.provider.fault = down
    await low(sidecar, "users/1")
    assert sidecar.plane.active["users/1", 0] == first
    await sidecar.service.refresh()
    wraps = sidecar.provider.wraps
    await sidecar.service.refresh()  # not again at once: the provider is down
    assert sidecar.provider.wraps == wraps
    sidecar.provider.fault = None
    sidecar.service._paused_until = 0.0
    await sidecar.service.refresh()
    assert sidecar.plane.active["users/1", 0] != first
    await sidecar.service.refresh()
    assert sidecar.provider.wraps == wraps + 1


async def test_two_sidecars_share_one_budget_and_one_rotation(sidecar: Sidecar, make_sidecar: MakeSidecar) -> None:
    sides = sidecar, make_sidecar()
    for side in sides:
        await side.want_active("users/1")
    first = sidecar.plane.active["users/1", 0]
    while any(side.plane.active["users/1", 0] == first for side in sides):
        await asyncio.gather(*(low(side, "users/1") for side in sides))
    assert sum(side.plane.slots[first].budget for side in sides) == 10_000
    assert sides[0].plane.active == sides[1].plane.active
    assert (await sidecar.store.data_key_counts())["users"] == 2


async def test_a_lease_that_fails_rotates_nothing(sidecar: Sidecar, monkeypatch: pytest.MonkeyPatch) -> None:
    await sidecar.want_active("users/1")
    await sidecar.store.close()
    await low(sidecar, "users/1")
    assert sidecar.service.stats()["rotations"] == 0
    assert sidecar.service.stats()["failed_keystoreclosed"] == 1


plans = st.lists(
    st.tuples(st.integers(0, 1), st.sampled_from(["use", "low", "restart"]), st.integers(1, 400)), max_size=20
)


@settings(max_examples=12, deadline=None)
@given(plan=plans)
def test_planes_never_get_more_than_the_budget(plan: list[tuple[int, str, int]]) -> None:
    asyncio.run(_follow(plan))


async def _follow(plan: list[tuple[int, str, int]]) -> None:
    options = replace(OPTIONS, messages_per_key=1_000, lease=50, lease_max=200)
    provider = CountingProvider()
    granted: Counter[int] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/keystore.sqlite"

        def start() -> Sidecar:
            return Sidecar(Keystore.open(url, exclusive=False), provider, options)

        first = Keystore.open(url, create=True)
        await first.create_keyring("contacts")
        await first.close()
        sides = [start(), start()]
        for who, what, wanted in [*plan, (0, "restart", 1), (1, "restart", 1)]:
            side = sides[who]
            if what == "use":
                await side.want_active("contacts", wanted)
                assert side.plane.slots[side.plane.active["contacts", 0]].budget >= wanted
            elif what == "low" and side.plane.active:
                await low(side, "contacts")
            elif what == "restart":
                granted.update({key_id: slot.budget for key_id, slot in side.plane.slots.items()})
                await side.service.close()
                await side.store.close()
                sides[who] = start()
        assert all(messages <= 1_000 for messages in granted.values())
        for key_id, messages in granted.items():
            key = await sides[0].store.key(key_id)
            assert key is not None
            assert messages <= key.messages_leased <= 1_000
        for side in sides:
            await side.store.close()
