"""Asking the running sidecar's admin socket, with the standard library's HTTP client."""

import http.client
import json
import socket
from pathlib import Path
from typing import Any, Final

from proxy.cli.failure import Failure
from proxy.exits import Exit

TIMEOUT_SECONDS: Final = 30.0
_EXITS: Final = {400: Exit.DATA, 403: Exit.DENIED, 404: Exit.DATA, 409: Exit.CANNOT_CREATE, 503: Exit.TRY_LATER}


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=TIMEOUT_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = connect(self._path)


def connect(path: Path) -> socket.socket:
    """Connect to one of the sidecar's sockets. Raises Failure saying whether it runs, and whether we may."""
    connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connected.settimeout(TIMEOUT_SECONDS)
    try:
        connected.connect(str(path))
    except (FileNotFoundError, ConnectionRefusedError) as error:
        connected.close()
        raise Failure(
            f"no sidecar answers on {path}: start `keyside serve` with this configuration, or wait for its `serving`",
            Exit.UNAVAILABLE,
        ) from error
    except PermissionError as error:
        connected.close()
        raise Failure(
            f"no permission to use {path}; its mode and group are set in the configuration", Exit.DENIED
        ) from error
    except OSError as error:
        connected.close()
        raise Failure(f"cannot connect to {path}: {error.strerror or error}", Exit.UNAVAILABLE) from error
    return connected


def ask(admin_socket: Path, method: str, path: str, body: dict[str, object] | None = None) -> dict[str, Any]:
    """One request. Raises Failure with the sidecar's own words when it refuses."""
    connection = _UnixConnection(admin_socket)
    try:
        connection.request(method, path, None if body is None else json.dumps(body))
        response = connection.getresponse()
        answer: dict[str, Any] = json.loads(response.read())
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise Failure(
            f"the sidecar's answer on {admin_socket} was cut short; look at its log", Exit.UNAVAILABLE
        ) from error
    finally:
        connection.close()
    if response.status >= 400 and "error" in answer:
        raise Failure(str(answer["error"]["message"]), _EXITS.get(response.status, Exit.FAILED))
    return answer
