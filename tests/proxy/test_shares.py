"""A pool that several uids draw from: each gets much, none gets all."""

import pytest

from proxy.http_json import Refused
from proxy.shares import Pool, Room


def drawn(pool: Pool, uid: int) -> int:
    count = 0
    while pool.take(uid, 1):
        count += 1
    return count


def test_a_lone_peer_gets_seven_eighths_and_others_still_something() -> None:
    pool = Pool(1024)
    assert [drawn(pool, uid) for uid in range(4)] == [896, 112, 14, 1]
    assert drawn(pool, 9) == 1  # whoever holds nothing may take the last
    assert drawn(pool, 10) == 0


def test_what_is_given_back_is_there_again() -> None:
    pool = Pool(100)
    for _ in range(3):
        assert drawn(pool, 1) == 87
        pool.give(1, 87)
    assert pool.take(2, 100)
    assert not pool.take(1, 1)


def test_one_large_share_is_taken_at_once() -> None:
    room = Room(1000)
    with room.share(1) as take, room.share(2) as other:
        take(990)
        other(10)
        with pytest.raises(Refused):
            take(1)
    with room.share(3) as take:
        take(1000)
