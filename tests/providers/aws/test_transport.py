"""The HTTP that carries calls: faults of microburst and of the network, TLS, what stays in memory."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import json
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from providers import ProviderError, Throttled, Timeout, Unavailable, WrapContext, create
from providers.aws import AwsProvider
from providers.http import HttpAnswer
from tests.providers.aws.rig import AwsRig, port_of
from tests.providers.aws.scripted import DATA_KEY, answer, encoded, scripted
from tests.providers.aws.test_answers import CONTEXT, WRAPPED
from tests.servers.aws import HOST, ServedAws, serve
from tests.servers.mishap import mishap

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedAws]:
    with serve(tmp_path_factory.mktemp("faulty"), faults=True) as served:
        yield served


@pytest_asyncio.fixture
async def provider(faulty: ServedAws, tmp_path: Path) -> AsyncIterator[AwsProvider]:
    hsm = {
        **faulty.hsm,
        "performance": {"requestTimeout": 1500, "retryPolicy": {"maxRetries": 2, "backoffMultiplier": 1}},
    }
    provider = create(hsm, tmp_path)
    assert isinstance(provider, AwsProvider)
    await provider.initialize()
    yield provider
    faulty.faults()
    await provider.close()


def rule(**effect: object) -> dict[str, object]:
    return {"service": "kms", "operation": "Decrypt", **effect}


RECOVERED: dict[str, dict[str, object]] = {
    "throttled": {"error": {"code": "ThrottlingException"}, "times": 2},
    "failing": {"error": {"code": "KMSInternalException", "status": 500}, "times": 2},
    "a dependency late": {"error": {"code": "DependencyTimeoutException", "status": 503}, "times": 1},
    "connection reset": {"reset": True, "times": 2},
    "slow": {"latency": 80, "times": 1},
}


@pytest.mark.parametrize("fault", RECOVERED)
async def test_what_passes_is_waited_out(faulty: ServedAws, provider: AwsProvider, fault: str) -> None:
    wrapped = await provider.wrap_key(DATA_KEY, CONTEXT)
    faulty.faults(rule(**RECOVERED[fault]))
    assert await provider.unwrap_key(wrapped, CONTEXT) == DATA_KEY


LASTING: dict[str, tuple[dict[str, object], type[ProviderError]]] = {
    "throttled": ({"error": {"code": "ThrottlingException"}}, Throttled),
    "failing": ({"error": {"code": "KMSInternalException", "status": 500}}, Unavailable),
    "connection reset": ({"reset": True}, Unavailable),
    "hung": ({"latency": 4000}, Timeout),
}


@pytest.mark.parametrize("fault", LASTING)
async def test_what_lasts_ends_within_the_timeout(faulty: ServedAws, provider: AwsProvider, fault: str) -> None:
    wrapped = await provider.wrap_key(DATA_KEY, CONTEXT)
    effect, expected = LASTING[fault]
    faulty.faults(rule(**effect))
    started = time.monotonic()
    with pytest.raises(expected):
        await provider.unwrap_key(wrapped, CONTEXT)
    assert time.monotonic() - started < 1.6
    faulty.faults()
    assert await provider.unwrap_key(wrapped, CONTEXT) == DATA_KEY


async def test_connections_that_break_under_calls_are_replaced(moto_rig: AwsRig) -> None:
    provider = moto_rig.make(connectionPoolSize=8)
    wrapped = await provider.wrap_key(DATA_KEY, CONTEXT)
    moto_rig.proxy.delay(to_client=0.1)
    calls = [asyncio.create_task(provider.unwrap_key(wrapped, CONTEXT)) for _ in range(8)]
    await asyncio.sleep(0.05)
    moto_rig.proxy.drop()
    moto_rig.proxy.normal()
    assert await asyncio.gather(*calls) == [DATA_KEY] * 8
    usage = provider.pool_usage()
    assert usage is not None
    assert (usage.active, usage.waiting) == (0, 0)
    await provider.close()


async def test_a_name_that_does_not_resolve_is_unavailable(tmp_path: Path) -> None:
    async with scripted() as service:
        hsm = service.hsm()
    hsm["connection"]["endpoint"] = "https://kms.invalid"
    provider = create(hsm, tmp_path)
    with pytest.raises(Unavailable, match=r"kms\.invalid:443"):
        await provider.initialize()
    await provider.close()


# TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 with its key, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kms")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(HOST))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    path.write_bytes(
        made.public_bytes(Encoding.PEM) + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    return path


@pytest.fixture
def server_tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


async def test_a_private_authority_is_trusted_when_it_is_named(
    certificate: Path, server_tls: ssl.SSLContext, tmp_path: Path
) -> None:
    async with scripted(server_tls) as service:
        hsm = service.hsm()
        hsm["connection"]["endpoint"] = f"https://{HOST}:{service.port}"
        strangers = create(hsm, tmp_path)
        with pytest.raises(Unavailable, match=r"not trusted .* tls\.caFile"):
            await strangers.initialize()
        await strangers.close()
        hsm["connection"]["tls"] = {"caFile": str(certificate), "minimumVersion": "1.3"}
        provider = create(hsm, tmp_path)
        assert await provider.unwrap_key(WRAPPED, CONTEXT) == DATA_KEY
        await provider.close()


async def test_old_tls_is_refused(certificate: Path, server_tls: ssl.SSLContext, tmp_path: Path) -> None:
    server_tls.maximum_version = ssl.TLSVersion.TLSv1_2
    async with scripted(server_tls) as service:
        hsm = service.hsm()
        hsm["connection"] |= {
            "endpoint": f"https://{HOST}:{service.port}",
            "tls": {"caFile": str(certificate), "minimumVersion": "1.3"},
        }
        provider = create(hsm, tmp_path)
        with pytest.raises(Unavailable):
            await provider.initialize()
        await provider.close()


# memory, imports


async def test_requests_and_answers_with_a_key_are_wiped(tmp_path: Path) -> None:
    async with scripted() as service:
        provider = create(service.hsm(), tmp_path)
        assert isinstance(provider, AwsProvider)
        await provider.initialize()
        bodies: list[bytes] = []
        sending = provider._transport.exchange

        async def kept(method: str, whole_url: str, given: Any, body: bytes) -> HttpAnswer:
            bodies.append(body)
            received = await sending(method, whole_url, given, body)
            bodies.append(received.body)
            return received

        provider._transport.exchange = kept  # type: ignore[method-assign]  # to look at what it had in its hands
        await provider.wrap_key(DATA_KEY, CONTEXT)
        await provider.unwrap_key(WRAPPED, CONTEXT)
        await provider.close()
    assert len(bodies) == 4
    assert all(body == bytes(len(body)) for body in bodies)


def test_a_sidecar_with_aws_loads_no_other_sdk() -> None:
    code = (
        "import asyncio, json, sys; from pathlib import Path; from providers import create\n"
        "provider = create({'provider': 'AWS_KMS', 'connection': {'region': 'eu-west-1', 'endpoint': 'http://127.0.0.1:9'},"
        " 'credentials': {'type': 'TOKEN', 'data': {'accessKeyId': 'a', 'secretAccessKey': 'b'}},"
        " 'performance': {'retryPolicy': {'maxRetries': 0}}}, Path('/'))\n"
        "before = set(sys.modules)\n"
        "async def main():\n"
        "    try: await provider.initialize()\n"
        "    except Exception as error: print(type(error).__name__, file=sys.stderr)\n"
        "asyncio.run(main())\n"
        "json.dump([sorted(before), sorted(sys.modules)], sys.stdout)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=ROOT, check=True, text=True)
    before, after = (set(names) for names in json.loads(done.stdout))
    assert done.stderr == "Unavailable\n"
    assert not {"botocore", "aiobotocore", "boto3"} & before, "configuration is checked without the SDK"
    assert {"botocore", "aiobotocore"} <= after
    assert not {"boto3", "azure", "google.cloud", "pkcs11", "hvac", "grpc"} & after


def test_a_missing_sdk_is_said() -> None:
    code = (
        "import asyncio, sys; from pathlib import Path; from providers import create\n"
        "sys.modules['aiobotocore'] = None\n"
        "asyncio.run(create({'provider': 'AWS_KMS'}, Path('/')).initialize())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=ROOT, check=False, text=True)
    assert "pip install 'keyside-proxy[aws]'" in done.stderr


async def test_an_answer_that_nobody_asked_for_ends_the_connection(tmp_path: Path) -> None:
    async with scripted() as service:
        provider = create(service.hsm(), tmp_path)
        await provider.initialize()
        extra = answer({"KeyId": WRAPPED.kek, "Plaintext": encoded(bytes(32))})
        good = answer({"KeyId": WRAPPED.kek, "Plaintext": encoded(DATA_KEY)})

        def twice(_asked: Any) -> bytes:
            asyncio.get_running_loop().call_later(0.02, send_extra)
            return good

        def send_extra() -> None:
            writers[-1].write(extra)

        writers = service.writers
        service.replies["Decrypt"] = twice
        assert await provider.unwrap_key(WRAPPED, CONTEXT) == DATA_KEY
        await asyncio.sleep(0.1)
        service.replies["Decrypt"] = good
        assert await provider.unwrap_key(WRAPPED, CONTEXT) == DATA_KEY, "not the answer that lay there"
        assert service.connections == 2
        await provider.close()


async def test_two_hundred_misses_share_the_pool(moto: ServedAws, tmp_path: Path) -> None:
    with mishap(port_of(moto.endpoint)) as proxy:
        hsm = {**moto.hsm, "performance": {"connectionPoolSize": 20, "requestTimeout": 20_000}}
        hsm["connection"] = {**hsm["connection"], "endpoint": f"http://{HOST}:{proxy.port}"}
        provider = create(hsm, tmp_path)
        wrapped = await provider.wrap_key(DATA_KEY, WrapContext(1, "users", None, "field"))
        calls = [provider.unwrap_key(wrapped, WrapContext(1, "users", None, "field")) for _ in range(200)]
        most = 0

        async def watch() -> None:
            nonlocal most
            while True:
                usage = provider.pool_usage()
                assert usage is not None
                assert usage.active <= 20
                most = max(most, usage.active)
                await asyncio.sleep(0.005)

        watching = asyncio.create_task(watch())
        assert await asyncio.gather(*calls) == [DATA_KEY] * 200
        watching.cancel()
        assert most == 20
        await provider.close()
