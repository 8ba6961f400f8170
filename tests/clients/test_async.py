"""The asyncio client: coalescing, cancellation, shared connections and bad days."""

import asyncio
import gc
import time
from pathlib import Path

import keyside
import pytest
from keyside import AsyncClient
from keyside.testing import faults, frames
from keyside.testing.frames import Code
from keyside.testing.server import ThreadedTwin, Twin, running


async def test_calls_of_one_tick_travel_in_one_frame(async_client: AsyncClient, twin: Twin) -> None:
    await asyncio.gather(*[async_client.encrypt("contacts", b"%d" % i, b"c") for i in range(100)])
    assert [len(r.items) for r in twin.requests] == [100]
    assert twin.requests[0].context == b"c"


async def test_contexts_of_their_own_travel_as_an_array(async_client: AsyncClient, twin: Twin) -> None:
    contexts = [None, b"a", "b", b""]
    envelopes = await asyncio.gather(*[async_client.encrypt("contacts", b"x", c) for c in contexts])
    assert [r.context for r in twin.requests] == [[None, b"a", b"b", b""]]
    values = await asyncio.gather(
        *[async_client.decrypt("contacts", e, c) for e, c in zip(envelopes, contexts, strict=True)]
    )
    assert values == [b"x"] * 4


async def test_operations_and_keyrings_travel_apart(async_client: AsyncClient, twin: Twin) -> None:
    await asyncio.gather(
        async_client.encrypt("contacts", b"x"),
        async_client.blind_index("contacts", b"x"),
        async_client.encrypt("users/1", b"x"),
        async_client.encrypt("contacts", b"y"),
        async_client.encrypt("nobody", b"y"),
        return_exceptions=True,
    )
    assert sorted((r.op, r.keyring, len(r.items)) for r in twin.requests) == [
        (1, "contacts", 2),
        (1, "nobody", 1),
        (1, "users/1", 1),
        (3, "contacts", 1),
    ]


async def test_each_caller_gets_its_own_error(async_client: AsyncClient, twin: Twin) -> None:
    good = await async_client.encrypt("contacts", b"x")
    results = await asyncio.gather(
        *[async_client.decrypt("contacts", e) for e in (good, b"rotten", good)], return_exceptions=True
    )
    assert results[0] == results[2] == b"x"
    assert isinstance(results[1], keyside.InvalidCiphertext)
    twin.faults.append(faults.refuse(Code.DENIED, "ask the operator"))
    refused = await asyncio.gather(*[async_client.encrypt("contacts", b"x") for _ in range(3)], return_exceptions=True)
    assert [str(e) for e in refused] == ["ask the operator"] * 3
    assert len({id(e) for e in refused}) == 3


async def test_one_callers_bad_argument_does_not_cost_the_others(async_client: AsyncClient, twin: Twin) -> None:
    results = await asyncio.gather(
        async_client.encrypt("contacts", b"x"),
        async_client.encrypt("contacts", 7),  # type: ignore[arg-type]  # that is the point
        async_client.encrypt("contacts", b"x", bytes(65_536)),
        async_client.encrypt("contacts", bytes(9 << 20)),
        async_client.encrypt("contacts", b"y"),
        return_exceptions=True,
    )
    assert [type(r) for r in results] == [bytes, TypeError, keyside.BadRequest, keyside.BadRequest, bytes]
    assert not twin.refusals


async def test_a_cancelled_call_leaves_the_others_and_the_connection_alone(
    async_client: AsyncClient, twin: Twin
) -> None:
    await async_client.encrypt("contacts", b"x")
    twin.faults.append(faults.delay(0.1))
    calls = [asyncio.create_task(async_client.encrypt("contacts", b"%d" % i)) for i in range(3)]
    await asyncio.sleep(0.03)
    calls[1].cancel()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(results[1], asyncio.CancelledError)
    assert await async_client.decrypt("contacts", results[2] if isinstance(results[2], bytes) else b"") == b"2"
    assert twin.connections == 1


async def test_a_cancelled_batch_leaves_the_connection_alone(async_client: AsyncClient, twin: Twin) -> None:
    await async_client.encrypt("contacts", b"x")
    twin.faults.append(faults.delay(0.05))
    batch = asyncio.create_task(async_client.encrypt_many("contacts", [b"x"] * 10))
    await asyncio.sleep(0.01)
    batch.cancel()
    with pytest.raises(asyncio.CancelledError):
        await batch
    await asyncio.sleep(0.1)
    envelopes = await asyncio.gather(*[async_client.encrypt("contacts", b"%d" % i) for i in range(5)])
    assert await async_client.decrypt_many("contacts", envelopes) == [b"%d" % i for i in range(5)]
    assert twin.connections == 1


async def test_a_call_cancelled_in_its_first_tick(async_client: AsyncClient, twin: Twin) -> None:
    first, second = (asyncio.create_task(async_client.encrypt("contacts", v)) for v in (b"a", b"b"))
    await asyncio.sleep(0)
    first.cancel()
    assert await async_client.decrypt("contacts", await second) == b"b"


async def test_the_deadline(twin: Twin) -> None:
    async with AsyncClient(twin.path, timeout=0.2) as ks:
        await ks.encrypt("contacts", b"x")
        twin.faults.append(faults.stall(5))
        start = time.monotonic()
        with pytest.raises(keyside.DeadlineExceeded):
            await ks.encrypt("contacts", b"x")
        assert 0.19 < time.monotonic() - start < 1.0
        twin.faults.append(faults.stall(0))
        with pytest.raises(keyside.DeadlineExceeded):
            await ks.encrypt_many("contacts", [b"x"] * 2000)
        assert await ks.encrypt("contacts", b"x")


async def test_an_answer_after_the_deadline_is_thrown_away(twin: Twin) -> None:
    async with AsyncClient(twin.path, timeout=0.1, pool_size=1) as ks:
        await ks.encrypt("contacts", b"x")
        twin.faults.append(faults.delay(0.2))
        late = asyncio.create_task(ks.encrypt("contacts", b"late"))
        await asyncio.sleep(0.05)
        assert await ks.encrypt("contacts", b"in time")  # something moves: the connection is alive
        with pytest.raises(keyside.DeadlineExceeded):
            await late
        for i in range(30):
            assert await ks.decrypt("contacts", await ks.encrypt("contacts", b"%d" % i)) == b"%d" % i
            await asyncio.sleep(0.01)
        assert twin.connections == 1


async def test_answers_in_another_order(twin: Twin) -> None:
    async with AsyncClient(twin.path, pool_size=1) as ks:
        await ks.encrypt("contacts", b"x")
        twin.faults.extend(faults.reorder(3))
        scopes = ["users/1", "users/2", "users/3"]
        envelopes = await asyncio.gather(*[ks.encrypt(s, s) for s in scopes])
        values = [await ks.decrypt(s, e) for s, e in zip(scopes, envelopes, strict=True)]
        assert values == [s.encode() for s in scopes]
        assert twin.connections == 1


@pytest.mark.parametrize("code", [22, 23, 24, 26])
async def test_retryable_refusals_are_retried(async_client: AsyncClient, twin: Twin, code: int) -> None:
    twin.faults.extend([faults.refuse(Code(code))] * 2)
    results = await asyncio.gather(*[async_client.encrypt("contacts", b"x") for _ in range(5)])
    assert len(results) == 5
    assert [len(r.items) for r in twin.requests] == [5, 5, 5]


async def test_only_failed_items_are_sent_again(async_client: AsyncClient, twin: Twin) -> None:
    twin.faults.append(faults.fail_items({1: Code.KMS_UNAVAILABLE, 2: Code.KEY_DISABLED}))
    results = await asyncio.gather(
        *[async_client.encrypt("contacts", b"%d" % i) for i in range(4)], return_exceptions=True
    )
    assert [len(r.items) for r in twin.requests] == [4, 1]
    assert [type(r) for r in results] == [bytes, bytes, keyside.KeyDisabled, bytes]


async def test_a_dropped_connection_is_replaced(async_client: AsyncClient, twin: Twin) -> None:
    await async_client.encrypt("contacts", b"x")
    twin.faults.append(faults.drop())
    assert await async_client.encrypt("contacts", b"x")
    assert twin.connections == 2


async def test_replacing_a_dead_connection_is_no_retry(twin: Twin) -> None:
    async with AsyncClient(twin.path, retries=0) as ks:
        await ks.encrypt("contacts", b"x")
        twin.faults.append(faults.drop())
        assert await ks.encrypt("contacts", b"x")
        twin.faults.append(faults.drop())
        assert await ks.encrypt_many("contacts", [b"x"])


async def test_half_an_answer_is_an_error(async_client: AsyncClient, twin: Twin) -> None:
    await async_client.encrypt("contacts", b"x")
    twin.faults.append(faults.cut(9))
    with pytest.raises(keyside.ConnectionLost):
        await async_client.encrypt("contacts", b"x")
    assert await async_client.encrypt("contacts", b"x")


@pytest.mark.parametrize(
    "body", ["00 90", "00 92 c0 c0", "00 91 c0", "00 91 14", "00 91 a161", "02 91 c40161", "11 90", "c1", "01 91 07"]
)
async def test_answers_that_make_no_sense(async_client: AsyncClient, twin: Twin, body: str) -> None:
    twin.faults.append(
        faults.answer_with(lambda r: frames.frame(b"\x93" + frames.pack_unsigned(r.id) + bytes.fromhex(body)))
    )
    with pytest.raises(keyside.ProtocolError):
        await async_client.encrypt("contacts", b"x")
    assert await async_client.encrypt("contacts", b"x")
    assert twin.connections == 2


@pytest.mark.parametrize("raw", [b"\x00\x00\x00\x00", b"\xff\xff\xff\xff", b"HTTP/1.1 400", b"\x00\x80\x00\x00"])
async def test_lengths_that_make_no_sense(async_client: AsyncClient, twin: Twin, raw: bytes) -> None:
    twin.faults.append(faults.answer_with(lambda r: raw))
    with pytest.raises(keyside.ProtocolError):
        await async_client.encrypt("contacts", b"x")
    assert await async_client.encrypt("contacts", b"x")


async def test_an_answer_to_no_request(async_client: AsyncClient, twin: Twin) -> None:
    twin.faults.append(faults.answer_with(lambda r: frames.build_response(r.id + 1, 0, [b"x"])))
    with pytest.raises(keyside.ProtocolError):
        await async_client.encrypt("contacts", b"x")


async def test_a_restart_is_not_noticed(threaded: ThreadedTwin, async_client: AsyncClient) -> None:
    envelopes = await async_client.encrypt_many("contacts", [b"x"] * 3000)
    path = Path(threaded.twin.path)
    await asyncio.to_thread(threaded.hang_up)
    await asyncio.to_thread(path.unlink)
    with running(path):
        assert await async_client.decrypt_many("contacts", envelopes) == [b"x"] * 3000
        assert await async_client.encrypt("contacts", b"x")


async def test_nobody_there(tmp_path: Path) -> None:
    async with AsyncClient(tmp_path / "none.sock", retries=1) as ks:
        results = await asyncio.gather(*[ks.encrypt("contacts", b"x") for _ in range(3)], return_exceptions=True)
    assert [type(r) for r in results] == [keyside.SidecarUnreachable] * 3


async def test_many_calls_share_few_connections(async_client: AsyncClient, twin: Twin) -> None:
    async def one(i: int) -> bool:
        await asyncio.sleep(i % 10 / 1000)
        scope = f"users/{i % 17}"
        return await async_client.decrypt(scope, await async_client.encrypt(scope, b"%d" % i)) == b"%d" % i

    assert all(await asyncio.gather(*[one(i) for i in range(500)]))
    assert twin.connections <= 4


async def test_frames_longer_than_the_sidecar_takes(tmp_path: Path) -> None:
    with running(tmp_path / "small.sock", max_frame=100_000) as twin:
        async with AsyncClient(twin.path) as ks:
            values = [bytes([i]) * 30_000 for i in range(10)]
            assert await ks.decrypt_many("contacts", await ks.encrypt_many("contacts", values)) == values
            singles = await asyncio.gather(*[ks.encrypt("contacts", v) for v in values])
            assert await ks.decrypt_many("contacts", singles) == values
            with pytest.raises(keyside.BadRequest, match="max_frame"):
                await ks.encrypt("contacts", bytes(100_000))
            assert not twin.refusals


async def test_a_closed_client(twin: Twin) -> None:
    ks = AsyncClient(twin.path)
    await ks.encrypt("contacts", b"x")
    twin.faults.append(faults.stall(0))
    calls = [asyncio.create_task(ks.encrypt("contacts", b"x")) for _ in range(2)]
    await asyncio.sleep(0.02)
    await ks.close()
    await ks.close()
    assert [type(e) for e in await asyncio.gather(*calls, return_exceptions=True)] == [keyside.ClientClosed] * 2
    with pytest.raises(keyside.ClientClosed):
        await ks.encrypt("contacts", b"x")


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # the first loop ends with the client open, as apps' do
def test_the_next_event_loop_gets_connections_of_its_own(twin: Twin) -> None:
    ks = AsyncClient(twin.path)

    async def use() -> bytes:
        return await ks.encrypt("contacts", b"x")

    async def use_and_close() -> bytes:
        result = await use()
        await ks.close()
        return result

    assert asyncio.run(use())
    assert asyncio.run(use_and_close())
    gc.collect()  # here, where the warning about the first loop's connection is expected
    assert twin.connections == 2
