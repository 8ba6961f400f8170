"""Asherah: envelope encryption with a key hierarchy, in process. The nearest rival: its keys rotate and have a KMS too.

Set up to be as fast as it can: the factory and session API that its documentation recommends, one session kept open
(so no lookup a call), the static KMS and the metastore in memory (so no I/O), keys that do not expire during the run.
It has no associated data of the caller's: the context is not used.
"""

from collections.abc import Sequence
from importlib.metadata import version

import asherah

CONFIG = {
    "ServiceName": "benchmark",
    "ProductID": "keyside",
    "Metastore": "memory",
    "KMS": "static",
    "StaticMasterKeyHex": "22" * 32,
    "EnableSessionCaching": True,
}


class Asherah:
    name = "asherah"
    version = version("asherah")

    def __init__(self) -> None:
        self._factory = asherah.SessionFactory(CONFIG)
        self._session = self._factory.get_session("users")

    def encrypt_many(self, values: Sequence[bytes], context: bytes) -> list[str]:
        encrypt = self._session.encrypt_bytes
        return [encrypt(value) for value in values]

    def decrypt_many(self, sealed: Sequence[str], context: bytes) -> list[bytes]:
        decrypt = self._session.decrypt_bytes
        return [decrypt(record) for record in sealed]

    def close(self) -> None:
        self._session.close()
        self._factory.close()


def open_rival() -> Asherah:
    return Asherah()
