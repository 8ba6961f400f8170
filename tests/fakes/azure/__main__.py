"""Serve until standard input ends; the first line of output is JSON: the URLs and the folder's files."""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
import ssl
import sys
from pathlib import Path

from aiohttp import web

from tests.fakes.azure.control import control_application
from tests.fakes.azure.entra import Entra
from tests.fakes.azure.vault import Vault
from tests.fakes.azure.web import Listening, State, VaultFace, entra_application, machine_application


async def listen(application: web.Application, tls: ssl.SSLContext | None) -> tuple[Listening, str]:
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    listening = Listening(runner, tls)
    return listening, await listening.start()


async def serve(folder: Path, kind: str, latency: float) -> None:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(folder / "server.pem")
    state = State(Vault("", kind), Entra(tenant="11111111-2222-3333-4444-555555555555"), latency)
    state.identity_header = secrets.token_hex(16)
    _, state.entra.url = await listen(entra_application(state), tls)
    state.listening, state.vault.url = await listen(VaultFace(state).application(), tls)
    served = {
        "vault": state.vault.url,
        "authority": state.entra.url,
        "tenant": state.entra.tenant,
        "machine": (await listen(machine_application(state), None))[1],
        "identity_header": state.identity_header,
        "control": (await listen(control_application(state), None))[1],
    }
    sys.stdout.write(json.dumps(served) + "\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)  # ends with the parent


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fakes.azure")
    parser.add_argument("folder", type=Path, help="holds server.pem: certificate and private key")
    parser.add_argument("--kind", choices=("vault", "hsm"), default="vault")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds that each request to the vault takes")
    chosen = parser.parse_args()
    asyncio.run(serve(chosen.folder, chosen.kind, chosen.latency))


if __name__ == "__main__":
    main()
