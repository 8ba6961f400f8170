"""A process with this back end: on uvloop, with this SDK and no other, and without it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.providers.gcp.rig import GcpRig

ROOT = Path(__file__).parents[3]

SERVING = """
import asyncio, json, os, sys
from pathlib import Path
import uvloop
from providers import WrapContext, create

async def main():
    provider = create(json.loads(sys.argv[1]), Path(sys.argv[2]))
    context = WrapContext(1, "users", "42", "field")

    async def caller():
        for _ in range(10):
            key = os.urandom(32)
            assert await provider.unwrap_key(await provider.wrap_key(key, context), context) == key

    await asyncio.gather(*(caller() for _ in range(8)))
    await provider.close()
    assert type(asyncio.get_running_loop()).__module__.startswith("uvloop")

uvloop.run(main())
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""
MISSING = """
import asyncio, sys
from pathlib import Path
from providers import ConfigurationInvalid, create
sys.modules["google.cloud.kms_v1"] = None

async def main():
    try:
        await create({"provider": "GCP_KMS"}, Path()).initialize()
    except ConfigurationInvalid as error:
        print(error)

asyncio.run(main())
"""


def test_it_serves_on_uvloop_and_loads_this_sdk_alone(rig: GcpRig) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "-c", SERVING, json.dumps(rig.hsm()), str(rig.folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    loaded = set(json.loads(done.stdout))
    assert {"google", "grpc"} <= loaded
    assert not loaded & {"boto3", "botocore", "aiobotocore", "azure", "pkcs11", "hvac"}


def test_without_the_sdk_it_says_what_to_install() -> None:
    done = subprocess.run([sys.executable, "-c", MISSING], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "pip install 'keyside-proxy[gcp]'" in done.stdout


def test_the_environment_that_the_server_names_is_all_it_takes(rig: GcpRig) -> None:
    hsm = rig.hsm()
    hsm["credentials"] = {"type": "IAM_ROLE"}
    environment = {name: value for name, value in os.environ.items() if name != "GOOGLE_APPLICATION_CREDENTIALS"}
    environment |= {
        **rig.google.environment,
        "CLOUDSDK_CONFIG": str(rig.folder),
        "NO_PROXY": "127.0.0.1",
    }
    done = subprocess.run(
        [sys.executable, "-c", SERVING, json.dumps(hsm), str(rig.folder)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
