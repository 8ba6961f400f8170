"""Standard output and standard error for a reader who may leave early, as in `keyside ... | head -1`."""

import io
import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


def outlive_readers() -> None:
    """From here on what nobody reads any more is dropped: a command goes on, and its exit code tells how it went."""
    # the interpreter has None for a stream that was closed before it began
    if sys.stdout is not None:
        sys.stdout = _outliving(sys.stdout)
    if sys.stderr is not None:
        sys.stderr = _outliving(sys.stderr)


def _outliving(stream: TextIO) -> TextIO:
    return io.TextIOWrapper(
        io.BufferedWriter(_Dropping(stream.fileno(), "wb", closefd=False)),
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.isatty() or stream is sys.stderr,
    )


class _Dropping(io.FileIO):
    """A file whose writes succeed when the reader of the pipe is gone."""

    def write(self, data: "ReadableBuffer", /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            return memoryview(data).nbytes
