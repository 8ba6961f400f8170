"""What opening the arena promises: its budget, its limits, and that nobody else ever reads a key in it."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from fastpath import memory
from tests.fastpath.processes import AS_NOBODY, environment, output

MIB = 1 << 20


@pytest.mark.parametrize("workers", [1, 2, 8, 64])
def test_the_budget_and_what_fits_agree(workers: int) -> None:
    for limit in (2 * MIB + workers * MIB // 8, 16 * MIB, 100 * MIB + 4097):
        fits = memory.fitting(limit, workers)
        assert memory.budget(fits, workers) <= limit < memory.budget(fits + 1, workers)


def test_the_usual_limit_of_8_mib_holds_150_000_keys() -> None:
    assert memory.fitting(8 * MIB, 2) > 150_000
    assert memory.budget(1, 1) < MIB
    assert (memory.budget(1_000_000, 4) - memory.budget(1, 4)) / 1_000_000 < 33


def test_nothing_fits_under_no_limit_at_all() -> None:
    assert memory.fitting(0, 1) == 0
    assert memory.fitting(-1, 1) == 0


@pytest.mark.parametrize(("keys", "workers"), [(0, 1), (-1, 1), (1 << 40, 1), (1, -1), (1, 100_000)])
def test_counts_out_of_range_are_refused(keys: int, workers: int) -> None:
    with pytest.raises(ValueError, match="is from"):
        memory.budget(keys, workers)


def test_the_report_is_of_what_is_locked(arena: memory.MemoryReport) -> None:
    assert memory.report() == arena
    page = os.sysconf("SC_PAGESIZE")
    assert arena.bytes_per_key == 32
    assert arena.locked_bytes == arena.heap_bytes + -(-arena.key_capacity * arena.bytes_per_key // page) * page
    assert arena.limit_bytes == resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    locked = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmLck:"))
    assert int(locked.split()[1]) * 1024 >= arena.locked_bytes


def test_it_opens_once(arena: memory.MemoryReport) -> None:
    with pytest.raises(RuntimeError, match="open already"):
        memory.open(10, 1)


def test_before_it_is_open_there_is_no_report_and_no_cryptography() -> None:
    program = """
    from fastpath import aead, memory
    print(memory.report())
    for make in aead.AesGcm256, aead.BlindIndexKey:
        try:
            make(bytes(32))
        except RuntimeError as error:
            print(error)
    """
    assert output(program).splitlines() == ["None"] + 2 * ["no cryptography yet: call fastpath.memory.open() first"]


# What the kernel holds against others


def regions(secretmem: bool) -> tuple[str, list[tuple[int, set[str]]]]:
    """The kind of arena that a fresh process gets, and (bytes, kernel flags) of its locked mappings."""
    program = f"""
    from pathlib import Path
    from fastpath import memory
    print(memory.open(1000, 1, secretmem={secretmem}).kind)
    print(Path("/proc/self/smaps").read_text())
    """
    kind, _, smaps = output(program).partition("\n")
    found = []
    size = 0
    for line in smaps.splitlines():
        name, _, value = line.partition(":")
        if name == "Size":
            size = int(value.split()[0]) * 1024
        elif name == "VmFlags" and "lo" in value.split():
            found.append((size, set(value.split())))
    return kind, found


@pytest.mark.parametrize("secretmem", [True, False])
def test_heap_and_keys_are_locked_and_kept_from_cores_and_children(secretmem: bool) -> None:
    kind, found = regions(secretmem)
    assert sum(size for size, _ in found) == memory.budget(1000, 1)
    assert len(found) == 2
    for _, flags in found:
        assert {"dc", "dd"} <= flags  # do not copy on fork, do not dump
        assert "ex" not in flags
        assert ("wf" in flags) == (kind == "mlock")  # wipe on fork
    if not secretmem:
        assert kind == "mlock"


@pytest.mark.parametrize("refusal", [errno.ENOSYS, errno.EPERM])
def test_without_memfd_secret_it_falls_back_and_says_so(refusal: int) -> None:
    program = f"""
    import ctypes, struct
    from fastpath import aead, memory
    # seccomp: load the call's number; 447 (memfd_secret) fails, all others pass
    code = b"".join(struct.pack("HBBI", *line) for line in (
        (0x20, 0, 0, 0), (0x15, 0, 1, 447), (0x06, 0, 0, 0x00050000 | {refusal}), (0x06, 0, 0, 0x7FFF0000)))
    block = ctypes.create_string_buffer(code)
    filter = ctypes.create_string_buffer(struct.pack("HxxxxxxP", 4, ctypes.addressof(block)))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, filter, 0, 0) == 0
    print(memory.open(1000, 1).kind)
    assert aead.AesGcm256(bytes(32)).seal(bytes(12), b"", b"")
    """
    assert output(program) == "mlock"


def test_pages_are_touched_only_when_used() -> None:
    program = """
    from pathlib import Path
    from fastpath import memory
    memory.open(200_000, 2, secretmem=False)
    print(Path("/proc/self/smaps").read_text())
    """
    resident = 0
    locked = 0
    for mapping in output(program).split("VmFlags:"):
        sizes = dict(line.split(":")[0:2] for line in mapping.splitlines() if line.endswith(" kB"))
        if sizes.get("Locked", "0 kB").split()[0] != "0":
            resident += int(sizes["Rss"].split()[0]) * 1024
            locked += int(sizes["Size"].split()[0]) * 1024
    # the key slots have not been touched, so that only the heap counts as locked and resident
    assert 0 < resident < MIB
    assert locked < memory.budget(200_000, 2)


def test_the_kernel_reads_secret_memory_to_nobody(probe_folder: Path) -> None:
    program = """
    import os, probe
    from fastpath import memory
    kind = memory.open(1000, 1).kind
    with open("/proc/self/mem", "rb", 0) as file:
        file.seek(probe.keys()[0])
        try:
            print(kind, len(file.read(64)))
        except OSError as error:
            print(kind, error.errno)
    """
    # locked anonymous memory, where the kernel has nothing better, is open to root
    assert output(program, probe_folder) in (f"memfd_secret {errno.EIO}", "mlock 64")


# The lock limit


@pytest.mark.parametrize("secretmem", [True, False])
@pytest.mark.parametrize("limit", [0, 256 << 10, 2 * MIB])
def test_a_limit_too_low_is_named_with_its_remedy(limit: int, secretmem: bool) -> None:
    program = f"""
    import resource, re
    from fastpath import memory
    resource.setrlimit(resource.RLIMIT_MEMLOCK, ({limit}, {limit}))
    {AS_NOBODY.strip().replace(chr(10), chr(10) + "    ")}
    try:
        memory.open(1_000_000, 2, secretmem={secretmem})
    except memory.MemoryLimit as error:
        print(error.strerror)
    assert memory.report() is None
    """
    message = output(program)
    needed = memory.budget(1_000_000, 2)
    assert f"cannot lock {needed} bytes" in message
    assert f"RLIMIT_MEMLOCK is {limit} bytes" in message
    assert f"LimitMEMLOCK={needed >> 10}K" in message
    assert f"ulimit -l {needed >> 10}'" in message
    assert f"memlock={needed}'" in message
    assert "CAP_IPC_LOCK" in message
    assert f"{memory.fitting(limit, 2)} fit" in message


def test_after_a_refusal_it_opens_for_as_many_keys_as_fit() -> None:
    program = f"""
    import resource
    from fastpath import aead, memory
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (2 << 20, 2 << 20))
    {AS_NOBODY.strip().replace(chr(10), chr(10) + "    ")}
    for _ in range(3):
        try:
            memory.open(1_000_000, 1)
        except memory.MemoryLimit:
            continue
    report = memory.open(memory.fitting(2 << 20, 1), 1)
    print(report.locked_bytes, report.limit_bytes, report.privileged)
    assert len(aead.AesGcm256(bytes(32)).seal(bytes(12), b"", b"text")) == 20
    """
    assert output(program) == f"{2 * MIB} {2 * MIB} False"


# Children


@pytest.mark.parametrize("secretmem", [True, False])
def test_a_child_gets_errors_and_ends_as_it_likes(secretmem: bool) -> None:
    program = f"""
    import atexit, os, sys
    from fastpath import aead, memory
    memory.open(1000, 1, secretmem={secretmem})
    cipher, index = aead.AesGcm256(bytes(32)), aead.BlindIndexKey(bytes(32))
    def attempt(call):
        try:
            call()
        except RuntimeError as error:
            print(error, flush=True)
    child = os.fork()
    if child == 0:
        attempt(memory.report)
        attempt(lambda: memory.open(10, 1))
        attempt(lambda: cipher.seal(bytes(12), b"", b""))
        attempt(lambda: cipher.open(bytes(12), b"", bytes(16)))
        attempt(lambda: index.index(b"", b""))
        attempt(lambda: aead.AesGcm256(bytes(32)))
        atexit.register(print, "ended in order", flush=True)
        sys.exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    print(len(cipher.seal(bytes(12), b"", b"still here")))
    """
    lines = output(program).splitlines()
    assert len(lines) == 8
    assert all("child process" in line or "forked from" in line for line in lines[:6])
    assert lines[6:] == ["ended in order", "26"]


def test_a_child_of_a_thread_that_used_openssl_ends_in_order(probe_folder: Path) -> None:
    # the thread's own random generator and free lists have destructors, which run at its end in the child, too
    program = """
    import gc, os, threading, probe
    from fastpath import aead, memory
    memory.open(1000, 1)
    def work():
        cipher = aead.AesGcm256(bytes(32))
        probe.nonces(5)
        probe.release(probe.malloc(100))
        child = os.fork()
        if child:
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        del cipher
    parent = os.getpid()
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    print("parent" if os.getpid() == parent else "child")
    """
    assert output(program, probe_folder).splitlines() == ["0", "parent"]


def test_subprocesses_and_multiprocessing_work_beside_it() -> None:
    program = """
    import multiprocessing, subprocess
    from fastpath import memory
    memory.open(1000, 1)
    assert subprocess.run(["true"]).returncode == 0
    with multiprocessing.get_context("fork").Pool(2) as pool:
        print(sum(pool.map(abs, range(-10, 0))))
    """
    assert output(program) == "55"


# Keys in memory

USER = """
import os, sys
from fastpath import aead, memory
kind = memory.open(1000, 1).kind
key = bytearray(32)
control = bytearray(32)
os.readv(0, [key])
os.readv(0, [control])
cipher = aead.AesGcm256(key)
index = aead.BlindIndexKey(key)
memory.wipe(key)
for i in range(1000):
    cipher.open(i.to_bytes(12, "big"), b"aad", cipher.seal(i.to_bytes(12, "big"), b"aad", b"p" * i))
    index.index(b"column", b"value")
print(kind, flush=True)
os.read(0, 1)
"""

SBOX_SEED = 0x63


def gf_times(a: int, b: int) -> int:
    """a times b in GF(2^8) of AES (FIPS 197, 4.2)."""
    product = 0
    while b:
        product ^= a if b & 1 else 0
        a = a << 1 ^ (0x11B if a & 0x80 else 0)
        b >>= 1
    return product


def sbox(byte: int) -> int:
    """SubBytes (FIPS 197, 5.1.1)."""
    inverse = next((other for other in range(256) if gf_times(byte, other) == 1), 0)
    rotations = 0
    for shift in range(5):
        rotations ^= inverse << shift | inverse >> (8 - shift)
    return (rotations ^ SBOX_SEED) & 0xFF


def key_schedule(key: bytes) -> list[bytes]:
    """The 15 round keys of AES-256 (FIPS 197, 5.2), 16 bytes each."""
    words = [key[i : i + 4] for i in range(0, 32, 4)]
    constant = 1
    while len(words) < 60:
        last = words[-1]
        if len(words) % 8 == 0:
            last = bytes(sbox(byte) for byte in last[1:] + last[:1])
            last = bytes([last[0] ^ constant]) + last[1:]
            constant = gf_times(constant, 2)
        elif len(words) % 8 == 4:
            last = bytes(sbox(byte) for byte in last)
        words.append(bytes(a ^ b for a, b in zip(words[-8], last, strict=True)))
    return [b"".join(words[i : i + 4]) for i in range(0, 60, 4)]


def traces(key: bytes) -> dict[str, bytes]:
    """What would give `key` away, by name: itself in encodings, its round keys, the GHASH key, the HMAC pads."""
    swapped = b"".join(key[i : i + 4][::-1] for i in range(0, 32, 4))
    found = {"first half": key[:16], "second half": key[16:], "swapped": swapped[:16], "reversed": key[::-1][:16]}
    found |= {"hex": key.hex().encode()[:32], "HEX": key.hex().upper().encode()[:32]}
    for number, round_key in enumerate(key_schedule(key)):
        found[f"round key {number}"] = round_key
        found[f"round key {number} swapped"] = b"".join(round_key[i : i + 4][::-1] for i in range(0, 16, 4))
    encryptor = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
    found["GHASH key"] = encryptor.update(bytes(16))
    found["HMAC inner pad"] = bytes(byte ^ 0x36 for byte in key)
    found["HMAC outer pad"] = bytes(byte ^ 0x5C for byte in key)
    return found


def readable_memory(pid: int) -> bytes:
    """Every byte of a process that /proc/PID/mem gives."""
    parts = []
    with Path(f"/proc/{pid}/mem").open("rb", 0) as file:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            start, end = (int(bound, 16) for bound in line.split()[0].split("-"))
            if not line.split()[1].startswith("r") or end > 1 << 63:
                continue
            try:
                file.seek(start)
                parts.append(file.read(min(end - start, 64 * MIB)))
            except OSError:
                # the arena, guard pages of others, the kernel's own pages: unreadable is what they should be
                parts.append(b"")
    return b"".join(parts)


def test_the_key_schedule_oracle_gives_fips_197s_example() -> None:
    key = bytes.fromhex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4")
    schedule = key_schedule(key)
    assert schedule[0] + schedule[1] == key
    assert schedule[2].hex() == "9ba354118e6925afa51a8b5f2067fcde"  # FIPS 197, A.3
    assert schedule[14].hex() == "fe4890d1e6188d0b046df344706c631e"


def test_no_trace_of_a_key_in_use_is_found_in_its_process() -> None:
    key, control = os.urandom(32), os.urandom(32)
    with subprocess.Popen(
        [sys.executable, "-c", USER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment()
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        os.write(process.stdin.fileno(), key)
        os.write(process.stdin.fileno(), control)
        kind = process.stdout.readline().strip()
        seen = readable_memory(process.pid)
        process.stdin.close()
    assert process.returncode == 0
    assert control in seen, "the scan must find what does lie in ordinary memory"
    found = {name for name, trace in traces(key).items() if trace in seen}
    # locked anonymous memory hides nothing from root
    assert found == set() if kind == b"memfd_secret" else "round key 2" in found


def test_the_scan_recognises_an_expanded_key() -> None:
    key, control = os.urandom(32), os.urandom(32)
    program = USER.replace("memory.open(1000, 1)", "memory.open(1000, 1, secretmem=False)")
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment()
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        os.write(process.stdin.fileno(), key)
        os.write(process.stdin.fileno(), control)
        assert process.stdout.readline() == b"mlock\n"
        seen = readable_memory(process.pid)
        process.stdin.close()
    found = {name for name, trace in traces(key).items() if trace in seen}
    assert {f"round key {number}" for number in range(15)} <= found


# Hardening and wiping


def test_hardening_takes_away_tracing_privileges_and_cores() -> None:
    program = """
    import ctypes, resource
    from pathlib import Path
    from fastpath import memory
    print(memory.harden())
    print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))
    status = Path("/proc/self/status").read_text()
    print(next(line.split()[1] for line in status.splitlines() if line.startswith("NoNewPrivs")))
    print(resource.getrlimit(resource.RLIMIT_CORE))
    """
    assert output(program).splitlines() == ["[]", "0", "1", "(0, 0)"]


def test_a_hardened_process_is_closed_to_its_own_user() -> None:
    program = f"""
    import os
    from fastpath import memory
    {AS_NOBODY.strip().replace(chr(10), chr(10) + "    ")}
    memory.harden()
    child = os.fork()
    if child == 0:
        try:
            open(f"/proc/{{os.getppid()}}/mem", "rb")
        except PermissionError:
            os._exit(3)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
    assert output(program) == "3"


@pytest.mark.parametrize("n", [16, 17, 32, 100_000])
def test_wiping_reaches_immutable_bytes(n: int) -> None:
    secret = os.urandom(n)
    memory.wipe(secret)
    assert secret == bytes(n)


def test_wiping_reaches_bytearrays_and_views() -> None:
    array = bytearray(b"short")
    memory.wipe(array)
    assert array == bytes(5)
    whole = bytearray(b"k" * 10)
    memory.wipe(memoryview(whole)[2:5])
    assert whole == b"kk\0\0\0kkkkk"
    memory.wipe(bytearray())
    secret = os.urandom(32)
    memory.wipe(memoryview(secret))
    assert secret == bytes(32)


@pytest.mark.parametrize("shared", [b"", b"a", b"fifteen bytes..", memoryview(b"view")])
def test_bytes_that_others_may_hold_are_not_wiped(shared: bytes | memoryview) -> None:
    before = bytes(shared)
    with pytest.raises(ValueError, match="shorter than 16"):
        memory.wipe(shared)
    assert shared == before


def test_wiping_refuses_what_it_cannot_reach() -> None:
    with pytest.raises(BufferError):
        memory.wipe(memoryview(bytearray(64))[::2])
    for other in ("a secret in a string", 5, None, [1]):
        with pytest.raises(TypeError):
            memory.wipe(other)  # type: ignore[arg-type]  # what a caller may get wrong
