"""The file that `keyside init` writes: every setting present, as a comment, with its default."""

from pathlib import Path
from typing import Final

from proxy.config.backends import hsm_yaml

_TEMPLATE: Final = """\
# Keyside. Every setting is here with its default, commented out; docs/configuration.md explains them.
# Relative paths start from this file's folder. Check a change with `keyside config check`, apply it with SIGHUP.

socket:                          # for applications
#  path: run/keyside.sock        # at most 107 bytes once absolute
#  mode: "0660"                  # quoted
#  group: null                   # group name or number that owns the socket

admin:                           # for operators: root and the uid that runs the sidecar may always use it
#  path: run/admin.sock
#  mode: "0600"
#  peers: []                     # others: [{{name: monitoring, uid: prometheus}}]

keystore:                        # keyrings, data keys and wraps: nothing usable without the root key
#  path: data/keystore.sqlite
#  url: null                     # instead of path: sqlite:////absolute/path

hsm:                             # who holds the key-encryption key
{hsm}
cache:                           # unwrapped data keys, in locked memory
#  keys: auto                    # how many; auto: as many as the lock limit allows
#  ttl: 1h                       # a key is unwrapped anew after this long
#  refresh_ahead: 0.8            # keys in use are refreshed after this share of ttl
#  negative_ttl: 2s              # how long a failure is answered from memory
#  on_low_lock_limit: refuse     # or degrade: start with fewer keys

workers:
#  count: auto                   # native threads; auto: one a usable CPU, one CPU left for the rest
#  pin: true                     # each to its CPU

limits:
#  max_frame: 8MiB
#  max_connections: 16384
#  idle_timeout: 10m             # silence between frames
#  stall_timeout: 30s            # silence within a frame, or an unread answer
#  park_timeout: 5s              # how long a request waits for its data key
#  park_requests: 65536          # how many may wait
#  park_bytes: 64MiB             # and their bytes
#  buffer_bytes: 512MiB          # half-received frames and unread answers, all connections together

policy:                          # nobody else may do anything
  peers:
    - name: {name}
      uid: {uid}                 # number or user name; gid likewise: all that are given must fit
      keyrings: ["*"]            # globs over `name` and `name/partition`; * matches / too
      operations: all            # or a list of encrypt, decrypt, blind_index, reencrypt
#     rate: null                 # items a second

budget:                          # messages a data key encrypts before a fresh one takes over
#  messages_per_key: 4294967296  # 2^32, which is the maximum (NIST SP 800-38D)
#  lease: 65536                  # block that a sidecar takes at first
#  lease_max: 4194304            # and at most, for busy keyrings

log:
#  level: info                   # debug, info, warning, error
#  format: text                  # or json
"""


def default_yaml(
    uid: int, *, name: str = "owner", key_file: Path | str = "data/root.key", provider: str = "LOCAL"
) -> str:
    """The configuration of a fresh installation, in which `uid` may do everything. `key_file`: for LOCAL."""
    return _TEMPLATE.format(uid=uid, name=name, hsm=hsm_yaml(provider, key_file))
