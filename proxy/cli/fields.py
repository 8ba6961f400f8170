"""`keyside encrypt` and `keyside decrypt`: one value from standard input to standard output, over the data socket."""

import socket
import sys
from pathlib import Path
from typing import Final

import click

from proxy.cli.admin_client import connect
from proxy.cli.failure import Failure
from proxy.cli.options import config_option, read_sockets
from proxy.exits import Exit
from proxy.frames import (
    LARGEST_ANSWER,
    LENGTH,
    Answer,
    FrameError,
    NotAnEnvelope,
    Op,
    Status,
    decode_answer,
    encode_request,
    envelope_from_text,
    envelope_to_text,
)

_EXITS: Final = {
    Status.BAD_REQUEST: Exit.DATA,
    Status.DENIED: Exit.DENIED,
    Status.UNKNOWN_KEYRING: Exit.DATA,
    Status.UNKNOWN_KEY: Exit.DATA,
    Status.INVALID_CIPHERTEXT: Exit.DATA,
    Status.KEY_DISABLED: Exit.DATA,
    Status.RATE_LIMITED: Exit.TRY_LATER,
    Status.OVERLOADED: Exit.TRY_LATER,
    Status.KMS_UNAVAILABLE: Exit.TRY_LATER,
    Status.SHUTTING_DOWN: Exit.TRY_LATER,
    Status.INTERNAL: Exit.DEFECT,
}
_ITEM_MESSAGES: Final = {
    Status.INVALID_CIPHERTEXT: "altered, cut short, or encrypted for another keyring or context",
    Status.UNKNOWN_KEY: "the keystore does not have the data key that this was encrypted under",
    Status.KEY_DISABLED: "the data key that this was encrypted under is disabled or destroyed",
    Status.KMS_UNAVAILABLE: "the data key is not cached and the provider cannot unwrap it now; try again",
}

_context = click.option(
    "--context", default="", help="What the value belongs to, such as users.email: the same to decrypt."
)


@click.command()
@click.argument("keyring")
@_context
@config_option
def encrypt(keyring: str, context: str, config_path: Path) -> None:
    """Encrypt all of standard input for KEYRING (`name` or `name/partition`) and print the envelope as text (ks1.…)."""
    envelope = _one(config_path, Op.ENCRYPT, keyring, context, _input())
    click.echo(envelope_to_text(envelope))


@click.command()
@click.argument("keyring")
@_context
@config_option
def decrypt(keyring: str, context: str, config_path: Path) -> None:
    """Decrypt an envelope as text (ks1.…) from standard input and print the value, byte for byte."""
    try:
        envelope = envelope_from_text(_input().strip().decode("ascii"))
    except UnicodeDecodeError as error:
        raise Failure("standard input is not a text envelope (ks1.…)", Exit.DATA) from error
    except NotAnEnvelope as error:
        raise Failure(str(error), Exit.DATA) from error
    sys.stdout.buffer.write(_one(config_path, Op.DECRYPT, keyring, context, envelope))
    sys.stdout.buffer.flush()


def _input() -> bytes:
    # the interpreter has None for a stream that was closed before it began
    if sys.stdin is None or sys.stdout is None:
        raise Failure(
            "standard input and standard output must be open: the value comes from one and goes to the other",
            Exit.FAILED,
        )
    return sys.stdin.buffer.read()


def _one(config_path: Path, op: Op, keyring: str, context: str, item: bytes) -> bytes:
    sockets = read_sockets(config_path)
    request = encode_request(1, op, keyring, context.encode() or None, [item])
    if sockets.max_frame is not None and len(request) - LENGTH.size > sockets.max_frame:
        raise Failure(
            f"the value does not fit in one request of limits.max_frame, {sockets.max_frame} bytes", Exit.DATA
        )
    answer = _exchange(sockets.data, request)
    if answer.status >= Status.BAD_REQUEST:
        raise Failure(f"{answer.status.name}: {answer.message}", _EXITS[answer.status])
    result = answer.items[0] if len(answer.items) == 1 else None
    if isinstance(result, Status):
        raise Failure(
            f"{result.name}: {_ITEM_MESSAGES.get(result, 'the sidecar could not do this')}",
            _EXITS.get(result, Exit.FAILED),
        )
    if result is None:
        raise Failure("the sidecar answered without a value; is it another version?", Exit.DEFECT)
    return result


def _exchange(path: Path, request: bytes) -> Answer:
    with connect(path) as connected:
        try:
            connected.sendall(request)
            (length,) = LENGTH.unpack(_receive(connected, LENGTH.size))
            if length > LARGEST_ANSWER:
                raise FrameError("the sidecar's answer is longer than any answer can be")
            return decode_answer(_receive(connected, length))
        except OSError as error:
            raise Failure(f"the sidecar on {path} did not answer in time; look at its log", Exit.UNAVAILABLE) from error
        except FrameError as error:
            raise Failure(f"{error}; is {path} the data socket?", Exit.UNAVAILABLE) from error


def _receive(connected: socket.socket, count: int) -> bytes:
    received = bytearray()
    while len(received) < count:
        chunk = connected.recv(min(count - len(received), 1 << 20))
        if not chunk:
            raise FrameError("the sidecar closed the connection without an answer")
        received += chunk
    return bytes(received)
