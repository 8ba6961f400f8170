"""However leases, restarts and a second sidecar interleave, no data key is ever granted more than its budget."""

import asyncio
import tempfile

from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.keyring import DataKey, KeyState, Purpose, Scope, Wrap, utc_now
from proxy.keystore import Keystore

KEY_ID = 2**64 - 1

Step = tuple[int, int | None]  # which sidecar; how many messages it leases, None: it restarts
steps = st.lists(st.tuples(st.integers(0, 1), st.none() | st.integers(0, 400)), max_size=25)


@settings(max_examples=20, deadline=None)
@given(limit=st.integers(1, 1000), first=st.integers(0, 300), plan=steps)
def test_leases_never_exceed_the_budget(limit: int, first: int, plan: list[Step]) -> None:
    asyncio.run(_follow(limit, min(first, limit), plan))


async def _follow(limit: int, first: int, plan: list[Step]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/keystore.sqlite"
        sidecars = [Keystore.open(url, create=True, exclusive=False) for _ in range(2)]
        await sidecars[0].create_keyring("contacts")
        await sidecars[0].insert_active(_key(first))
        granted = first
        at_once: list[asyncio.Task[int]] = []
        for who, messages in [*plan, (0, None)]:
            if messages is not None:
                at_once.append(asyncio.ensure_future(sidecars[who].lease(KEY_ID, messages, limit)))
                continue
            granted += sum(await asyncio.gather(*at_once))
            at_once = []
            await sidecars[who].close()
            sidecars[who] = Keystore.open(url, exclusive=False)
        assert granted <= limit
        key = await sidecars[1].key(KEY_ID)
        assert key is not None
        assert key.messages_leased == granted
        asked = first + sum(messages or 0 for _, messages in plan)
        assert granted == min(asked, limit)
        await asyncio.gather(*(sidecar.close() for sidecar in sidecars))


def _key(leased: int) -> DataKey:
    made = utc_now()
    wrap = Wrap("LOCAL", "k", "m", b"x", made)
    return DataKey(KEY_ID, Scope("contacts"), Purpose.FIELD, KeyState.ACTIVE, 1, leased, (wrap,), made)
