def parse(
    body: bytes,
) -> tuple[int, int, bytes, bytes | list[bytes | None] | None, list[bytes | None]] | tuple[int, int]:
    """The request in `body` as (id, op, keyring, context, items), or (1 or 2, id) when it is BAD_REQUEST: 2 closes.

    For tests against the plain-Python twin; goes through the same function as the workers.
    """
