"""Keystores in folders of their own."""

import secrets
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from proxy.keyring import DataKey, KeyState, Purpose, Scope, Wrap, utc_now
from proxy.keystore import Keystore

MakeKey = Callable[..., DataKey]


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/keystore.sqlite"


@pytest.fixture
async def store(url: str) -> AsyncIterator[Keystore]:
    opened = Keystore.open(url, create=True)
    await opened.create_keyring("users", partitioned=True, index_bits=64)
    await opened.create_keyring("contacts")
    yield opened
    await opened.close()


@pytest.fixture
def make_key() -> MakeKey:
    def make(scope: str = "contacts", *, key_id: int | None = None, generation: int = 1, leased: int = 100) -> DataKey:
        made = utc_now()
        return DataKey(
            id=secrets.randbits(64) if key_id is None else key_id,
            scope=Scope.parse(scope),
            purpose=Purpose.FIELD,
            state=KeyState.ACTIVE,
            generation=generation,
            messages_leased=leased,
            wraps=(Wrap("COUNTING", "kek-1", "AES-256-GCM", secrets.token_bytes(60), made),),
            created_at=made,
        )

    return make
