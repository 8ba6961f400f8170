"""Slow, hanging, throttling, vanishing and strange servers; and what the pool counts meanwhile."""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from providers import (
    CredentialsInvalid,
    Denied,
    HealthStatus,
    KeyDisabled,
    NotFound,
    Provider,
    ProviderError,
    Throttled,
    Timeout,
    Unavailable,
    WrapContext,
    WrappedKey,
)
from providers.gcp import GcpProvider
from tests.fakes.gcp.certificates import Authority, write
from tests.providers.gcp.rig import GcpRig
from tests.servers.gcp import serve
from tests.servers.mishap import Mishap, mishap

CONTEXT = WrapContext(7, "users", "42", "field")
PATIENT = {"requestTimeout": 5000}


async def opened(provider: GcpProvider) -> WrappedKey:
    return await provider.wrap_key(os.urandom(32), CONTEXT)


@pytest.fixture
def proxy(rig: GcpRig) -> Iterator[Mishap]:
    with mishap(rig.google.ready["port"]) as between:
        yield between


def behind(rig: GcpRig, proxy: Mishap, **performance: object) -> GcpProvider:
    hsm = rig.hsm(**performance)
    hsm["connection"]["endpoint"] = f"127.0.0.1:{proxy.port}"
    return rig.made_of(hsm)


async def test_a_call_that_hangs_costs_the_timeout_and_no_more(rig: GcpRig) -> None:
    provider = rig.make()
    wrapped = await opened(provider)
    await provider.close()
    provider = rig.make(requestTimeout=800)
    await provider.initialize()
    rig.google.order("fault", method="Decrypt", kind="hang", count=4)
    started = time.monotonic()
    outcomes = await asyncio.gather(*(provider.unwrap_key(wrapped, CONTEXT) for _ in range(4)), return_exceptions=True)
    assert all(isinstance(outcome, Timeout) for outcome in outcomes)
    assert time.monotonic() - started < 0.8 + 0.1 + 0.1  # the contract, and what a crowded machine adds
    assert await provider.unwrap_key(wrapped, CONTEXT)
    await provider.close()


async def test_a_network_that_hangs_costs_the_timeout_and_the_next_call_connects_anew(
    rig: GcpRig, proxy: Mishap
) -> None:
    provider = behind(rig, proxy, requestTimeout=1000, connectionPoolSize=1)
    wrapped = await opened(provider)
    proxy.hang()
    with pytest.raises(Timeout):
        await provider.unwrap_key(wrapped, CONTEXT)
    proxy.drop()
    proxy.normal()
    assert await provider.unwrap_key(wrapped, CONTEXT)
    assert proxy.accepted() >= 2
    await provider.close()


async def test_a_connection_that_is_cut_is_made_again_within_the_call(rig: GcpRig, proxy: Mishap) -> None:
    provider = behind(rig, proxy, **PATIENT)
    wrapped = await opened(provider)
    for _ in range(3):
        proxy.drop()
        assert await provider.unwrap_key(wrapped, CONTEXT)
    await provider.close()


async def test_an_answer_that_is_lost_is_asked_for_again(rig: GcpRig, proxy: Mishap) -> None:
    provider = behind(rig, proxy, **PATIENT)
    wrapped = await opened(provider)
    proxy.cut_answers()
    asked = asyncio.create_task(provider.unwrap_key(wrapped, CONTEXT))
    await asyncio.sleep(0.05)
    proxy.normal()
    assert await asked
    await provider.close()


async def test_refused_connections_are_unavailable_at_once_and_recover(rig: GcpRig, proxy: Mishap) -> None:
    provider = behind(rig, proxy, requestTimeout=2000, retryPolicy={"maxRetries": 1})
    wrapped = await opened(provider)
    proxy.unplug()
    started = time.monotonic()
    with pytest.raises(Unavailable, match="endpoint"):
        await provider.unwrap_key(wrapped, CONTEXT)
    assert time.monotonic() - started < 1.5
    proxy.normal()
    assert await provider.unwrap_key(wrapped, CONTEXT)
    await provider.close()


async def test_a_name_that_does_not_resolve_is_unavailable(rig: GcpRig) -> None:
    hsm = rig.hsm(requestTimeout=8000, retryPolicy={"maxRetries": 0})
    hsm["connection"]["endpoint"] = "kms.invalid:443"
    provider = rig.made_of(hsm)
    with pytest.raises((Unavailable, Timeout)):
        await provider.initialize()
    assert (await provider.health_check()).status is HealthStatus.DOWN
    await provider.close()


async def test_throttling_is_obeyed(rig: GcpRig) -> None:
    provider = rig.make()
    wrapped = await opened(provider)
    refusal: dict[str, Any] = {"code": "RESOURCE_EXHAUSTED", "message": "Quota exceeded.", "retry_after": 0.4}
    rig.google.order("fault", method="Decrypt", kind="status", **refusal)
    started = time.monotonic()
    assert await provider.unwrap_key(wrapped, CONTEXT)
    assert time.monotonic() - started >= 0.4
    rig.google.order("fault", method="Decrypt", kind="status", **refusal | {"retry_after": 60})
    with pytest.raises(Throttled) as told:
        await provider.unwrap_key(wrapped, CONTEXT)
    assert told.value.retry_after == 60
    await provider.close()


@pytest.mark.parametrize("code", ["UNAVAILABLE", "INTERNAL", "ABORTED", "UNKNOWN", "DEADLINE_EXCEEDED"])
async def test_failures_of_the_service_are_retried(rig: GcpRig, code: str) -> None:
    provider = rig.make()
    wrapped = await opened(provider)
    rig.google.order("fault", method="Decrypt", kind="status", count=2, code=code, message="not now")
    assert await provider.unwrap_key(wrapped, CONTEXT)
    assert rig.google.order("seen")["calls"]["Decrypt"] == 3
    await provider.close()


async def test_a_destroyed_version_is_disabled_and_the_others_serve(rig: GcpRig) -> None:
    provider = rig.make()
    old = await opened(provider)
    rig.rotate()
    new = await opened(provider)
    rig.google.order("state", key=rig.key, state="DESTROYED", number=1)
    with pytest.raises(KeyDisabled, match="destroyed"):
        await provider.unwrap_key(old, CONTEXT)
    assert await provider.unwrap_key(new, CONTEXT)
    await provider.close()


async def test_a_primary_that_is_disabled_does_not_keep_old_data_keys_out(rig: GcpRig) -> None:
    provider = rig.make()
    old = await opened(provider)
    await provider.close()
    rig.rotate()
    rig.google.order("state", key=rig.key, state="DISABLED", number=2)
    restarted = rig.make()
    assert await restarted.unwrap_key(old, CONTEXT)
    with pytest.raises(KeyDisabled):
        await opened(restarted)
    health = await restarted.health_check()
    assert health.status is HealthStatus.DEGRADED
    assert "DISABLED" in health.detail
    rig.google.order("state", key=rig.key, state="ENABLED")
    assert await opened(restarted)
    await restarted.close()


async def test_a_key_that_is_not_there_is_named(rig: GcpRig) -> None:
    provider = rig.made_of(rig.hsm() | {"kek": "nobody-made-it"})
    with pytest.raises(NotFound, match="nobody-made-it"):
        await provider.initialize()
    await provider.close()


async def test_two_hundred_callers_share_what_is_configured_and_the_counts_are_true(rig: GcpRig) -> None:
    provider = rig.make(connectionPoolSize=10, requestTimeout=20000)
    wrapped = await opened(provider)
    rig.google.order("latency", seconds=0.02)
    callers = [asyncio.create_task(provider.unwrap_key(wrapped, CONTEXT)) for _ in range(200)]
    await asyncio.sleep(0.1)
    during = provider.pool_usage()
    assert during is not None
    assert (during.size, during.active) == (10, 10)
    assert during.waiting > 100
    await asyncio.gather(*callers)
    after = provider.pool_usage()
    assert after is not None
    assert (after.active, after.waiting) == (0, 0)
    seen = rig.google.order("seen")
    assert seen["most_busy"] == seen["connections"] == after.idle == 10
    await provider.close()


async def test_channels_are_replaced_by_age(rig: GcpRig) -> None:
    provider = rig.make(connectionPoolSize=1, connectionMaxAge=1)
    wrapped = await opened(provider)
    await provider.unwrap_key(wrapped, CONTEXT)
    assert rig.google.order("seen")["connections"] == 1
    await asyncio.sleep(1)
    await provider.unwrap_key(wrapped, CONTEXT)
    assert rig.google.order("seen")["connections"] == 2
    await provider.close()


async def test_two_providers_may_be_open_at_once(rig: GcpRig) -> None:
    first, second = rig.make(), rig.make()
    wrapped = await opened(first)
    await second.initialize()
    await first.close()
    assert await second.unwrap_key(wrapped, CONTEXT)
    await second.close()


# whoever answers instead


@asynccontextmanager
async def answering(folder: Path, reply: bytes, *, tls: bool = True) -> AsyncIterator[tuple[int, Path]]:
    """A server that says `reply` to everybody, and the authority that certified it."""
    authority = Authority("another")
    certificate, key = write(folder, "stranger", authority.certify("stranger"))
    path = folder / "stranger-authority.pem"
    path.write_bytes(authority.certificate)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    context.set_alpn_protocols(["h2"])

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(reply)
        try:
            await writer.drain()
            await reader.read(65536)
        except OSError:
            pass  # whoever called has gone
        finally:
            writer.close()

    server = await asyncio.start_server(speak, "127.0.0.1", 0, ssl=context if tls else None)
    async with server:
        yield server.sockets[0].getsockname()[1], path


@pytest.mark.parametrize("tls", [True, False])
async def test_a_page_instead_of_an_answer_is_unavailable(rig: GcpRig, tls: bool) -> None:
    page = b"HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/html\r\n\r\n<html>ya29.secret</html>"
    async with answering(rig.folder, page, tls=tls) as (port, authority):
        hsm = rig.hsm(requestTimeout=2000, retryPolicy={"maxRetries": 0})
        hsm["connection"] |= {"endpoint": f"127.0.0.1:{port}", "tls": {"caFile": str(authority)}}
        provider = rig.made_of(hsm)
        with pytest.raises((Unavailable, Timeout)) as refusal:
            await provider.initialize()
        assert "html" not in str(refusal.value)
        assert "ya29" not in str(refusal.value)
        await provider.close()


async def test_a_server_that_another_authority_certified_is_not_spoken_to(rig: GcpRig) -> None:
    stranger = rig.folder / "stranger.pem"
    stranger.write_bytes(Authority("another").certificate)
    hsm = rig.hsm(requestTimeout=2000, retryPolicy={"maxRetries": 0})
    hsm["connection"]["tls"] = {"caFile": str(stranger)}
    provider = rig.made_of(hsm)
    with pytest.raises((Unavailable, Timeout)):
        await provider.initialize()
    assert rig.google.order("seen")["calls"] == {}
    await provider.close()


@pytest.mark.parametrize("content", [None, b"no certificate"])
async def test_an_authority_that_cannot_be_read_is_said(rig: GcpRig, content: bytes | None) -> None:
    path = rig.folder / "authority.pem"
    if content is not None:
        path.write_bytes(content)
    hsm = rig.hsm()
    hsm["connection"]["tls"] = {"caFile": str(path)}
    provider = rig.made_of(hsm)
    with pytest.raises(CredentialsInvalid, match=r"connection\.tls"):
        await provider.initialize()
    await provider.close()


async def test_a_client_certificate_is_shown_where_it_is_demanded(tmp_path_factory: pytest.TempPathFactory) -> None:
    with serve(tmp_path_factory.mktemp("google"), client_certificates=True) as served:
        rig = GcpRig(served, tmp_path_factory.mktemp("rig"), "certified")
        provider: Provider = rig.make()
        await provider.initialize()
        await provider.close()
        hsm = rig.hsm(requestTimeout=2000, retryPolicy={"maxRetries": 0})
        del hsm["connection"]["tls"]["certificateFile"], hsm["connection"]["tls"]["keyFile"]
        provider = rig.made_of(hsm)
        with pytest.raises(ProviderError):
            await provider.initialize()
        await provider.close()


async def test_a_missing_permission_is_denied_and_named(rig: GcpRig) -> None:
    provider = rig.make()
    wrapped = await opened(provider)
    rig.google.order("restrict", permissions=["cloudkms.cryptoKeyVersions.useToEncrypt"])
    with pytest.raises(Denied, match="useToDecrypt"):
        await provider.unwrap_key(wrapped, CONTEXT)
    await provider.close()
