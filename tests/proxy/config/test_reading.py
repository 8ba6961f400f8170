"""All problems at once, each with its path, and nothing secret in any of them."""

import grp
import os
import pwd
from pathlib import Path

import pytest

from proxy.config import ALL_OPERATIONS, Config, ConfigError, default_yaml, load, parse

BASE = Path("/etc/keyside")


def problems(text: str) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        parse(text, base=BASE)
    return {problem.path: problem.message for problem in caught.value.problems}


def test_every_problem_of_every_section_is_told_at_once() -> None:
    found = problems("""
socket: {path: /x, mode: 0660, group: no-such-group, path: /y}
admin: {peers: [{name: x}, {uid: 1, gid: -1}]}
keystore: {url: "mysql://x"}
hsm: {provider: LOCAL, keyfile: x, performance: {requestTimeout: soon, retryPolicy: {maxRetries: -1}}}
cache: {keys: many, ttl: 5, refresh_ahead: 1.5, negative_ttl: 2 parsecs, on_low_lock_limit: shrug}
workers: {count: 0, pin: "yes"}
limits: {max_frame: 1TiB, max_frames: 1, buffer_bytes: 4MiB, idle_timeout: 1.5ms}
policy:
  peers:
    - {uid: no-such-user, keyrings: users, operations: [encrypt, shred]}
    - {name: nobody-at-all, keyrings: [], operations: some, rate: 0}
    - 3
budget: {messages_per_key: 4294967297, lease: 5, lease_max: 4}
log: 5
logs: {}
1: 2
""")
    assert set(found) == {
        "socket.path",
        "socket.mode",
        "socket.group",
        "admin.peers[0].gid",
        "admin.peers[1].gid",
        "keystore.url",
        "hsm.keyfile",
        "hsm.performance.requestTimeout",
        "hsm.performance.retryPolicy.maxRetries",
        "cache.keys",
        "cache.ttl",
        "cache.refresh_ahead",
        "cache.negative_ttl",
        "cache.on_low_lock_limit",
        "workers.count",
        "workers.pin",
        "limits.max_frame",
        "limits.max_frames",
        "limits.idle_timeout",
        "policy.peers[0].uid",
        "policy.peers[0].keyrings",
        "policy.peers[0].operations[1]",
        "policy.peers[1].gid",
        "policy.peers[1].keyrings",
        "policy.peers[1].operations",
        "policy.peers[1].rate",
        "policy.peers[2]",
        "budget.messages_per_key",
        "budget.lease_max",
        "log",
        "logs",
        "1",
    }
    assert "second time" in found["socket.path"]
    assert "quoted" in found["socket.mode"]
    assert "unknown setting" in found["limits.max_frames"] == found["logs"]


def test_the_message_of_the_error_shows_all_lines() -> None:
    with pytest.raises(ConfigError) as caught:
        parse("cache: {ttl: x, keys: x}", base=BASE, source="keyside.yaml")
    lines = str(caught.value).splitlines()
    assert lines[0] == "keyside.yaml cannot be used:"
    assert [line.split(":")[0].strip() for line in lines[1:]] == ["cache.keys", "cache.ttl"]


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("limits: {max_frame: 8MiB, buffer_bytes: 4MiB}", "limits.buffer_bytes"),
        ("budget: {messages_per_key: 262144, lease: 300000, lease_max: 300000}", "budget.lease"),
        ("hsm: {provider: NO_SUCH_HSM}", "hsm.provider"),
        ("hsm: {}\nbase: /x", "base"),
        ("socket: {path: " + "s" * 120 + "}", "socket.path"),
        ("policy: {peers: [{uid: 4294967295, keyrings: ['*'], operations: all}]}", "policy.peers[0].uid"),
        ("policy: {peers: [{uid: true, keyrings: ['*'], operations: all}]}", "policy.peers[0].uid"),
        ('policy: {peers: [{uid: 1, keyrings: ["a\\u0000b"], operations: all}]}', "policy.peers[0].keyrings"),
        ("cache: {refresh_ahead: .nan}", "cache.refresh_ahead"),
        ('socket: {mode: "0888"}', "socket.mode"),
        ("cache: {keys: true}", "cache.keys"),
        ("limits: {max_connections: 1.5}", "limits.max_connections"),
        ("policy: {peers: {uid: 1}}", "policy.peers"),
    ],
)
def test_one_bad_setting_is_named(text: str, path: str) -> None:
    assert list(problems(text)) == [path]


@pytest.mark.parametrize(
    "text", ["[1, 2]", "just words", "a: [", "a: b: c", "\x00", "{a: &x [*x]}: 1", "? {b: 1}\n: 2"]
)
def test_what_is_no_mapping_of_settings_is_refused(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text, base=BASE)
    assert caught.value.problems


def test_credentials_never_appear(caplog: pytest.LogCaptureFixture) -> None:
    secret = "sesame-5f7a"
    text = (
        f"hsm: {{provider: LOCAL, credentials: {{type: TOKEN, data: {secret}}}, bogus: {secret}, keyFile: [{secret}]}}"
    )
    with pytest.raises(ConfigError) as caught:
        parse(text, base=BASE)
    assert secret not in str(caught.value)
    good = parse(f"hsm: {{provider: LOCAL, credentials: {{type: TOKEN, data: {secret}}}}}", base=BASE)
    assert secret not in repr(good)
    assert secret not in "".join(good.unbuilt())
    assert any("credentials" in line for line in good.unbuilt())
    assert secret not in caplog.text


def test_an_empty_file_and_empty_sections_mean_the_defaults() -> None:
    config = parse("", base=BASE)
    assert config == parse("cache:\nsocket:\nhsm:\npolicy: {}\n# nothing else", base=BASE)
    assert config.socket.path == BASE / "run/keyside.sock"
    assert config.socket.mode == 0o660
    assert config.admin.path == BASE / "run/admin.sock"
    assert config.admin.mode == 0o600
    assert config.keystore.location == "sqlite:////etc/keyside/data/keystore.sqlite"
    assert (config.cache.ttl, config.cache.negative_ttl) == (3_600_000, 2_000)
    assert (config.limits.max_frame, config.limits.buffer_bytes) == (8 << 20, 512 << 20)
    assert config.budget.messages_per_key == 2**32
    assert config.policy.peers == ()
    assert config.base == BASE


def test_quantities_are_read_as_written() -> None:
    config = parse(
        "cache: {ttl: 1d, negative_ttl: 250ms}\n"
        "limits: {idle_timeout: 1.5h, stall_timeout: 90s, max_frame: 65536, park_bytes: 1GB, buffer_bytes: 2GiB}",
        base=BASE,
    )
    assert (config.cache.ttl, config.cache.negative_ttl) == (86_400_000, 250)
    assert (config.limits.idle_timeout, config.limits.stall_timeout) == (5_400_000, 90_000)
    assert (config.limits.max_frame, config.limits.park_bytes, config.limits.buffer_bytes) == (65536, 10**9, 2 << 30)


def test_accounts_are_resolved() -> None:
    me, group = pwd.getpwuid(os.geteuid()), grp.getgrgid(os.getegid())
    config = parse(
        f"socket: {{group: {group.gr_name}}}\n"
        f"policy: {{peers: [{{uid: {me.pw_name}, gid: {group.gr_name}, keyrings: [a, b/*], operations: all}}]}}",
        base=BASE,
    )
    (peer,) = config.policy.peers
    assert (peer.uid, peer.gid, config.socket.group) == (me.pw_uid, group.gr_gid, group.gr_gid)
    assert (peer.keyrings, peer.operations, peer.rate) == (("a", "b/*"), ALL_OPERATIONS, None)


def test_a_keystore_path_with_odd_characters_survives_the_url(tmp_path: Path) -> None:
    config = parse("keystore: {path: 'a b?c#d%20.sqlite'}", base=tmp_path)
    from sqlalchemy import make_url

    assert make_url(config.keystore.location).database == str(tmp_path / "a b?c#d%20.sqlite")


def test_a_configuration_cannot_be_changed() -> None:
    config = parse("", base=BASE)
    with pytest.raises(ValueError, match="frozen"):
        setattr(config.cache, "ttl", 1)  # noqa: B010  # a type checker would refuse the plain assignment


def test_the_default_file_means_the_defaults_and_lets_its_owner_do_everything() -> None:
    written = parse(default_yaml(1234), base=BASE)
    (peer,) = written.policy.peers
    assert (peer.uid, peer.keyrings, peer.operations) == (1234, ("*",), ALL_OPERATIONS)
    assert _without_policy(written) == _without_policy(parse("", base=BASE))
    assert written.unbuilt() == []


def test_every_comment_of_the_default_file_is_a_true_default() -> None:
    lines = [line[1:] if line.startswith("#  ") else line for line in default_yaml(1).splitlines()]
    uncommented = parse("\n".join(line for line in lines if "rate:" not in line), base=BASE)
    plain = parse(default_yaml(1), base=BASE)
    assert uncommented.model_copy(update={"hsm": {}}) == plain.model_copy(update={"hsm": {}})
    for section in ("socket", "admin", "keystore", "cache", "workers", "limits", "budget", "log"):
        named = {line.split(":")[0].strip() for line in lines if line.startswith(" ")}
        assert set(getattr(plain, section).model_dump()) <= named


def test_a_vocabulary_of_operators_loads_and_says_what_is_not_acted_on() -> None:
    config = parse(
        """
hsm:
  provider: LOCAL
  keyFile: data/root.key
  connection: {endpoint: "https://hsm", region: eu-1, partition: p1, slot: 3, libraryPath: /usr/lib/x.so}
  credentials: {type: IAM_ROLE}
  performance:
    connectionPoolSize: 4
    requestTimeout: 500
    retryPolicy: {maxRetries: 2, backoffMultiplier: 1.5}
    sessionCacheSize: 9
  highAvailability:
    replicas: [{region: eu-2, roleArn: "arn:x"}]
    loadBalancing: ROUND_ROBIN
    haGroupName: g
    members: [{serial: "1", hostname: a}]
    synchronization: {automatic: true, interval: 60}
  monitoring:
    cloudwatch: {enabled: true, namespace: n}
    alerts: [{metric: m, threshold: 1, action: a}]
""",
        base=BASE,
    )
    unbuilt = config.unbuilt()
    for setting in ("connection.endpoint", "highAvailability.replicas", "monitoring.alerts", "sessionCacheSize"):
        assert any(setting in line for line in unbuilt), setting
    assert not any("requestTimeout" in line for line in unbuilt)


def test_unreadable_files_say_why(tmp_path: Path) -> None:
    missing, folder, binary, huge = (tmp_path / name for name in ("missing", "folder", "binary", "huge"))
    folder.mkdir()
    binary.write_bytes(b"\xff\xfe\x00")
    huge.write_bytes(b"#" * (1 << 21))
    for path, word in ((missing, "keyside init"), (folder, "cannot be read"), (binary, "UTF-8"), (huge, "longer")):
        with pytest.raises(ConfigError, match=word):
            load(path)


def test_load_takes_paths_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "keyside.yaml").write_text("socket: {path: s/k.sock}\nkeystore: {path: /var/k.sqlite}")
    config = load(tmp_path / "keyside.yaml")
    assert config.socket.path == tmp_path / "s/k.sock"
    assert config.keystore.path == Path("/var/k.sqlite")


def _without_policy(config: Config) -> Config:
    return config.model_copy(update={"policy": None})


def test_a_bad_operation_is_one_problem(tmp_path: Path) -> None:
    text = "policy: {peers: [{uid: 1, keyrings: [a], operations: [sing]}]}"
    with pytest.raises(ConfigError) as refused:
        parse(text, base=tmp_path)
    assert [problem.path for problem in refused.value.problems] == ["policy.peers[0].operations[0]"]
