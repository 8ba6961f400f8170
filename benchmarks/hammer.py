"""Keeps the control plane of a sidecar busy by asking for its status.  python -m benchmarks.hammer ADMIN_SOCKET"""

import socket
import sys

PIPELINED = 64
REQUEST = b"GET /v1/status HTTP/1.1\r\nHost: localhost\r\n\r\n"


def hammer(path: str) -> None:
    """Ask for ever, many requests at once, and read what comes."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
        link.connect(path)
        waiting = 0
        while True:
            if waiting < PIPELINED // 2:
                link.sendall(REQUEST * PIPELINED)
                waiting += PIPELINED
            answer = link.recv(1 << 16)
            if not answer:
                raise ConnectionError("the sidecar closed the admin connection")
            waiting -= answer.count(b"HTTP/1.1 200")


if __name__ == "__main__":
    hammer(sys.argv[1])
