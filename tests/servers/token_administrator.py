"""What a token's administrator does by hand, by `python -m tests.servers.token_administrator`.

Apart from the product's code on purpose, and in another process, so that the library of the product is not disturbed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pkcs11
from pkcs11 import Attribute, KeyType, MechanismFlag, ObjectClass
from pkcs11 import Mechanism as Ckm

from tests.servers import Served

ROOT: Final = Path(__file__).parents[2]
TOKEN: Final = "keyside-test"
FIRST_KEY: Final = "00000001"
"""CKA_ID of the key-encryption key that is there from the start."""

USES = MechanismFlag.ENCRYPT | MechanismFlag.DECRYPT | MechanismFlag.WRAP | MechanismFlag.UNWRAP


@dataclass(frozen=True)
class ServedToken(Served):
    """A token, and what its administrator can do to it."""

    library: str = ""
    pin: str = ""
    mac: bool = False  # whether keys come with a MAC key

    def order(self, order: str, label: str = "keyside", identity: str = FIRST_KEY, *flags: str) -> str:
        """Have an administrator do something to the objects of that label and CKA_ID; returns what it printed."""
        command = [sys.executable, "-m", __name__, self.library, TOKEN, self.pin, order, label, identity, *flags]
        if self.mac and order == "generate":
            command.append("--mac")
        done = subprocess.run(
            command, cwd=ROOT, env=os.environ | self.environment, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("library")
    parser.add_argument("token")
    parser.add_argument("pin")
    parser.add_argument("order", choices=["generate", "forbid", "allow", "destroy", "count"])
    parser.add_argument("label")
    parser.add_argument("id", type=bytes.fromhex)
    parser.add_argument("--mac", action="store_true", help="a MAC key beside the AES key")
    parser.add_argument("--extractable", action="store_true")
    return parser.parse_args()


def generate(session: Any, wanted: argparse.Namespace) -> None:
    template = {
        Attribute.SENSITIVE: not wanted.extractable,
        Attribute.EXTRACTABLE: wanted.extractable,
        Attribute.PRIVATE: True,
    }
    names = {"id": wanted.id, "label": wanted.label, "store": True, "template": template}
    session.generate_key(KeyType.AES, 256, capabilities=USES, **names)
    if wanted.mac:
        session.generate_key(
            KeyType.GENERIC_SECRET,
            256,
            capabilities=MechanismFlag.SIGN | MechanismFlag.VERIFY,
            mechanism=Ckm.GENERIC_SECRET_KEY_GEN,
            **names,
        )


def found(session: Any, wanted: argparse.Namespace) -> list[Any]:
    return list(session.get_objects({Attribute.LABEL: wanted.label, Attribute.ID: wanted.id}))


def main() -> None:
    wanted = arguments()
    token = pkcs11.lib(wanted.library).get_token(token_label=wanted.token)
    with token.open(rw=True, user_pin=wanted.pin) as session:
        if wanted.order == "generate":
            generate(session, wanted)
        elif wanted.order == "count":
            sys.stdout.write(f"{len(found(session, wanted))}\n")
        for key in found(session, wanted):
            if wanted.order == "destroy":
                key.destroy()
            elif wanted.order in ("forbid", "allow") and key[Attribute.CLASS] == ObjectClass.SECRET_KEY:
                for use in (Attribute.DECRYPT, Attribute.UNWRAP):
                    key[use] = wanted.order == "allow"


if __name__ == "__main__":
    main()
