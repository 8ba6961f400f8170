"""From settings to an open token: the library's file, the certificate's files, the PIN, and the device before."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from pkcs11 import Session

from providers.errors import ConfigurationInvalid, Problem
from providers.options import SECTION
from providers.pkcs11.certificates import check_files
from providers.pkcs11.device import Choice, Device, make_first_key, open_device
from providers.pkcs11.library import SharedLibrary, shared
from providers.pkcs11.options import CertificateCredentials, Pkcs11Options
from providers.pkcs11.token import RefusedPins
from providers.pkcs11.vendors import Mechanism
from providers.wiping import wipe

_log = logging.getLogger(__name__)


class Opening:
    """What one provider keeps from one opening to the next. Its methods run in threads, one at a time."""

    def __init__(self, options: Pkcs11Options, base: Path) -> None:
        self._options = options
        self._base = base
        self._refused = RefusedPins()
        self._library: SharedLibrary | None = None
        self._device: Device | None = None

    def open(self) -> Device:
        """Close what was open and open the token. Raises ProviderError."""
        options = self._options
        self._part()
        library = self._joined()
        pin = self._pin()
        try:
            device = open_device(library, self._choice(), pin, self._refused)
        finally:
            wipe(pin)
        self._device = device
        library.device_opened()
        token = device.token
        _log.info(
            "%s: token %r (%s, firmware %d.%d), key %s, %s",
            options.provider,
            token.label,
            token.model,
            *token.firmware_version,
            device.kek,
            device.sealing.name,
        )
        return device

    def try_library(self) -> str:
        """Load and initialise the library; a line about it. Raises ConfigurationInvalid, Unavailable."""
        library = self._joined()
        library.ready()
        with library.calling():
            native = library.native
            maker, what = native.manufacturer_id.strip(), native.library_description.strip()
        return f"{library.path} ({maker}, {what})"

    def try_credentials(self) -> str:
        """Read what logging in takes, and send nothing of it; a line about it. Raises ProviderError."""
        credentials = self._options.credentials
        found = ["the PIN can be read"]
        if isinstance(credentials, CertificateCredentials):
            ends = check_files(credentials.data, self._base)
            found.insert(0, f"the client certificate is valid until {ends:%Y-%m-%d}")
        wipe(credentials.data.pin.read(self._base))
        return "; ".join(found)

    def make_first_key(self, make: Callable[[Session, Mechanism], str]) -> str:
        """Make a key on a token that has none to be opened with. Raises ProviderError."""
        library = self._joined()
        pin = self._pin()
        try:
            return make_first_key(library, self._choice(), pin, self._refused, make)
        finally:
            wipe(pin)

    def close(self) -> None:
        """Log out and leave the library, which the last to leave finalises."""
        self._part()
        if self._library is not None:
            library, self._library = self._library, None
            library.leave()

    def _part(self) -> None:
        device, self._device = self._device, None
        if device is not None:
            device.shared.device_gone()
            device.close()

    def _pin(self) -> bytearray:
        credentials = self._options.credentials
        if isinstance(credentials, CertificateCredentials):
            check_files(credentials.data, self._base)
        return credentials.data.pin.read(self._base)

    def _joined(self) -> SharedLibrary:
        if self._library is None:
            library = shared(str(self._path()))
            library.join()
            self._library = library
        return self._library

    def _path(self) -> Path:
        given = self._options.connection.library_path
        candidates = [self._base / given] if given else [Path(path) for path in self._options.vendor.libraries]
        for path in candidates:
            if path.is_file():
                return path.resolve()
        raise ConfigurationInvalid(
            [
                Problem(
                    f"{SECTION}.connection.libraryPath",
                    f"there is no library at {' or '.join(map(str, candidates))}: install the HSM's client, or name "
                    "its PKCS #11 library here",
                )
            ]
        )

    def _choice(self) -> Choice:
        options = self._options
        return Choice(
            vendor=options.vendor,
            slot=options.connection.slot,
            label=options.token_label,
            kek=options.kek,
            mechanism=None if options.mechanism == "AUTO" else options.mechanism,
            session_seconds=options.performance.connection_max_age,
        )
