"""Answers, however they come."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.http.answers import AnswerParser, HttpAnswer, Malformed

LARGEST = 1000


@given(st.binary(max_size=300), st.integers(1, 40), st.booleans())
def test_an_answer_is_read_however_it_is_cut(body: bytes, step: int, chunked: bool) -> None:
    if chunked:
        parts = [body[i : i + 7] for i in range(0, len(body), 7)]
        whole = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        whole += b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
    else:
        whole = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nX: y\r\n\r\n%s" % (len(body), body)
    parser = AnswerParser(LARGEST)
    for _ in range(2):
        answers = [parser.feed(whole[start : start + step]) for start in range(0, len(whole), step)]
        assert answers[:-1] == [None] * (len(answers) - 1)
        last = answers[-1]
        assert last is not None
        assert (last.status, last.body, last.keep_alive) == (200, body, True)


@given(st.binary(max_size=400))
def test_whatever_comes_is_read_or_refused(garbage: bytes) -> None:
    for prefix in (b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"):
        try:
            found = AnswerParser(LARGEST).feed(prefix + garbage)
        except Malformed:
            continue
        assert found is None or isinstance(found, HttpAnswer)


@pytest.mark.parametrize(
    ("version", "connection", "keeps"),
    [("1.1", "", True), ("1.1", "close", False), ("1.0", "", False), ("1.0", "keep-alive", True)],
)
def test_which_connections_go_on(version: str, connection: str, keeps: bool) -> None:
    line = f"Connection: {connection}\r\n" if connection else ""
    found = AnswerParser(LARGEST).feed(f"HTTP/{version} 200 OK\r\nContent-Length: 0\r\n{line}\r\n".encode())
    assert found is not None
    assert found.keep_alive is keeps


@pytest.mark.parametrize("status", [204, 304])
def test_some_answers_have_no_body_and_no_length(status: int) -> None:
    parser = AnswerParser(LARGEST)
    for _ in range(2):
        found = parser.feed(b"HTTP/1.1 %d Whatever\r\nX: y\r\n\r\n" % status)
        assert found is not None
        assert (found.status, found.body, found.keep_alive) == (status, b"", True)
    with pytest.raises(Malformed):
        parser.feed(b"HTTP/1.1 %d Whatever\r\n\r\nbody" % status)


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_is_as_large_as_allowed_and_no_larger(chunked: bool) -> None:
    def whole(size: int) -> bytes:
        if chunked:
            return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (size, bytes(size))
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (size, bytes(size))

    found = AnswerParser(LARGEST).feed(whole(LARGEST))
    assert found is not None
    assert len(found.body) == LARGEST
    with pytest.raises(Malformed):
        AnswerParser(LARGEST).feed(whole(LARGEST + 1))


def test_chunks_of_next_to_nothing_are_refused() -> None:
    parser = AnswerParser(LARGEST)
    parser.feed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    chunk = b"1;" + b"x" * 58 + b"\r\ny\r\n"
    with pytest.raises(Malformed, match="next to nothing"):
        parser.feed(chunk * (LARGEST - 1))
