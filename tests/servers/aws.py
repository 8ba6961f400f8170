"""AWS on loopback: moto, MiniStack or a fake that is quick, and microburst in front for faults.

Neither is all of AWS KMS. moto seals with AES-GCM and checks IAM policies, yet lets disabled keys work, and it knows no
import and no replicas. MiniStack knows key states, import and replicas, yet does not authenticate ciphertexts. Suites
run on both and name what the one at hand lacks.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal

import botocore.session

from tests.servers import Served

ROOT: Final = Path(__file__).parents[2]
PROGRAMS: Final = ROOT / ".venv" / "servers" / "bin"
HOST: Final = "127.0.0.1"
REGION: Final = "eu-west-1"
ALIAS: Final = "alias/keyside"
ACCESS_KEY: Final = "AKIAKEYSIDETEST00000"
SECRET_KEY: Final = "a-secret-access-key-of-forty-characters-"

_PR_SET_PDEATHSIG: Final = 1
_PATIENCE: Final = 30.0  # seconds for a server to answer

_loaders: Final[list[Any]] = []  # botocore's descriptions of services, read once

Engine = Literal["moto", "ministack", "fake"]


@dataclass(frozen=True)
class ServedAws(Served):
    """The running service and its key `alias/keyside`; `key` is that key's ARN."""

    upstream: str = ""  # past microburst
    endpoint: str = ""  # as the sidecar sees it
    key: str = ""
    access_key: str = ACCESS_KEY
    secret_key: str = field(default=SECRET_KEY, repr=False)
    folder: Path = Path()

    def ask(self, service: str, operation: str, region: str = REGION, **parameters: Any) -> dict[str, Any]:
        """Do something as an administrator, through an SDK of its own and past all faults."""
        return ask(self.upstream, service, operation, (self.access_key, self.secret_key), region, **parameters)

    def faults(self, *rules: Mapping[str, object]) -> None:
        """Have microburst apply these rules from now on, and no others; it must have been asked for."""
        _post(f"{self.endpoint}/_microburst/rules", rules)


@contextmanager
def serve(
    folder: Path, *, engine: Engine = "moto", faults: bool = False, policed: bool = False, latency: float = 0.0
) -> Iterator[ServedAws]:
    """Start it.

    `faults`: with microburst in front. `policed` (moto): IAM policies count; ours is an administrator's key. `latency`
    (fake): seconds that each answer is held back.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as running:
        upstream = running.enter_context(_server(engine, folder, policed, latency))
        endpoint = running.enter_context(_microburst(upstream, folder)) if faults else upstream
        who = _administrator(upstream) if policed else (ACCESS_KEY, SECRET_KEY)
        key = ask(upstream, "kms", "create_key", who, KeyUsage="ENCRYPT_DECRYPT")["KeyMetadata"]["Arn"]
        ask(upstream, "kms", "create_alias", who, AliasName=ALIAS, TargetKeyId=key)
        hsm = {
            "provider": "AWS_KMS",
            "kek": ALIAS,
            "connection": {"endpoint": endpoint, "region": REGION},
            "credentials": {"type": "TOKEN", "data": secret_files(folder, *who)},
        }
        if faults:
            # its first requests make it read botocore's descriptions, which takes a second
            blob = ask(endpoint, "kms", "encrypt", who, KeyId=key, Plaintext=b"warm")["CiphertextBlob"]
            ask(endpoint, "kms", "decrypt", who, KeyId=key, CiphertextBlob=blob)
        yield ServedAws(hsm, {"AWS_ENDPOINT_URL": endpoint}, upstream, endpoint, key, *who, folder)


def secret_files(folder: Path, access_key: str, secret_key: str, token: str | None = None) -> dict[str, str]:
    """Write an access key into files of mode 0600; returns `credentials.data` that names them."""
    data = {}
    for setting, value in (("accessKeyId", access_key), ("secretAccessKey", secret_key), ("sessionToken", token)):
        if value is not None:
            path = folder / setting
            path.touch(0o600)
            path.write_text(value)
            data[f"{setting}File"] = str(path)
    return data


def ask(
    endpoint: str, service: str, operation: str, who: tuple[str, str], region: str = REGION, **parameters: Any
) -> dict[str, Any]:
    """One call of the SDK without its asyncio."""
    return dict(getattr(_client(endpoint, service, who, region), operation)(**parameters))


@cache
def _client(endpoint: str, service: str, who: tuple[str, str], region: str) -> Any:
    session = botocore.session.Session()
    if _loaders:
        session.register_component("data_loader", _loaders[0])
    _loaders.append(session.get_component("data_loader"))
    return session.create_client(
        service, region, endpoint_url=endpoint, aws_access_key_id=who[0], aws_secret_access_key=who[1]
    )


def create_user(upstream: str, who: tuple[str, str], name: str, statements: Sequence[object]) -> tuple[str, str]:
    """An IAM user with one inline policy: its access key and secret."""
    policy = json.dumps({"Version": "2012-10-17", "Statement": list(statements)})
    ask(upstream, "iam", "create_user", who, UserName=name)
    ask(upstream, "iam", "put_user_policy", who, UserName=name, PolicyName="policy", PolicyDocument=policy)
    made = ask(upstream, "iam", "create_access_key", who, UserName=name)["AccessKey"]
    return made["AccessKeyId"], made["SecretAccessKey"]


def _administrator(upstream: str) -> tuple[str, str]:
    everything = {"Effect": "Allow", "Action": "*", "Resource": "*"}
    return create_user(upstream, (ACCESS_KEY, SECRET_KEY), "administrator", [everything])


@contextmanager
def _server(engine: Engine, folder: Path, policed: bool, latency: float) -> Iterator[str]:
    port = free_port()
    if engine == "moto":
        command = [str(PROGRAMS / "moto_server"), "-H", HOST, "-p", str(port)]
        # the first three calls make the administrator
        environment = {"INITIAL_NO_AUTH_ACTION_COUNT": "3"} if policed else {}
    elif engine == "fake":
        command = [sys.executable, "-m", "tests.fakes.aws", str(port), "--latency", str(latency)]
        environment = {}
    else:
        command = [str(PROGRAMS / "ministack")]
        environment = {
            "BIND_HOST": HOST,
            "GATEWAY_PORT": str(port),
            "IOT_MTLS_ENABLED": "false",
            "CLOUDTRAIL_RECORDING": "1",
            "STATE_DIR": str(folder / "ministack"),
            "SERVICES": "kms,sts,iam,cloudtrail",
            "LOG_LEVEL": "WARNING",
        }
    with _process(command, environment, port, folder / f"{engine}.log"):
        yield f"http://{HOST}:{port}"


@contextmanager
def _microburst(upstream: str, folder: Path) -> Iterator[str]:
    port = free_port()
    command = [str(PROGRAMS / "microburst"), "--upstream", upstream, "--host", HOST, "--port", str(port), "--no-resign"]
    with _process(command, {}, port, folder / "microburst.log"):
        yield f"http://{HOST}:{port}"


@contextmanager
def _process(command: Sequence[str], environment: Mapping[str, str], port: int, log: Path) -> Iterator[None]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    with (
        log.open("wb") as output,
        subprocess.Popen(
            command,
            cwd=ROOT,
            env={**inherited, **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            preexec_fn=_end_with_parent,
        ) as process,
    ):
        try:
            _await(process, port, log)
            yield
        finally:
            process.kill()


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _await(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex((HOST, port)) == 0:
                return
        time.sleep(0.03)
    raise RuntimeError(f"{process.args!r} does not serve: {log.read_text(errors='replace')[-2000:]}")


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _post(url: str, body: object) -> None:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10) as answer:
        answer.read()
