"""A key service on a keystore of its own, with a plane and a provider that tests can look into."""

from collections.abc import AsyncIterator, Callable

import pytest

from fastpath.dataplane import KeyMiss, ScopeMiss
from proxy.keyring import DataKey, Purpose, Scope
from proxy.keys import KeyOptions, KeyService
from proxy.keystore import Keystore
from tests.proxy.backends import CountingProvider
from tests.proxy.planes import RecordingPlane

OPTIONS = KeyOptions(
    ttl=60_000,
    refresh_ahead=0.8,
    negative_ttl=50,
    messages_per_key=10_000,
    lease=1_000,
    lease_max=4_000,
    patience=20_000,  # longer than the slowest machine takes: a test that waits for its end names a short one
)


class Sidecar:
    """The control plane's side of one sidecar."""

    def __init__(self, store: Keystore, provider: CountingProvider, options: KeyOptions = OPTIONS) -> None:
        self.store = store
        self.provider = provider
        self.plane = RecordingPlane()
        self.service = KeyService(self.plane, store, provider, options)
        self._token = 300

    async def want_key(self, key_id: int, scope: str, uid: int = 1000) -> None:
        self._token += 1
        await self.service.handle(KeyMiss("key", self._token, key_id, scope, uid))

    async def want_active(self, scope: str, wanted: int = 1, purpose: Purpose = Purpose.FIELD, uid: int = 1000) -> None:
        self._token += 1
        await self.service.handle(ScopeMiss("scope", self._token, scope, int(purpose), wanted, uid))

    async def active(self, scope: str, purpose: Purpose = Purpose.FIELD) -> DataKey:
        found = await self.store.active_key(Scope.parse(scope), purpose)
        assert found is not None
        return found

    @property
    def tokens(self) -> int:
        """How many misses were asked about."""
        return self._token - 300


MakeSidecar = Callable[..., Sidecar]


@pytest.fixture
def provider() -> CountingProvider:
    return CountingProvider()


@pytest.fixture
async def make_sidecar(store: Keystore, provider: CountingProvider) -> AsyncIterator[MakeSidecar]:
    made: list[Sidecar] = []

    def make(options: KeyOptions = OPTIONS, *, with_provider: CountingProvider | None = None) -> Sidecar:
        made.append(Sidecar(store, with_provider or provider, options))
        return made[-1]

    yield make
    for sidecar in made:
        await sidecar.service.close()


@pytest.fixture
def sidecar(make_sidecar: MakeSidecar) -> Sidecar:
    return make_sidecar()
