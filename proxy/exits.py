"""Exit codes of `keyside`: those of sysexits.h, which systemd knows by name; docs/cli.md explains them."""

from enum import IntEnum


class Exit(IntEnum):
    OK = 0
    FAILED = 1  # nothing more precise is known
    USAGE = 2  # unknown command or option
    DATA = 65  # the input is refused: not an envelope, wrong context, malformed name
    UNAVAILABLE = 69  # no sidecar answers on its socket
    DEFECT = 70  # a bug; the log has the correlation id
    SYSTEM = 71  # the machine does not give what is needed: lock limit, descriptors, kernel features
    CANNOT_CREATE = 73  # a file or socket cannot be made, or would be overwritten
    STORAGE = 74  # the keystore cannot be used
    TRY_LATER = 75  # another instance runs, or the sidecar is busy, stopping or cut off from its HSM or KMS
    DENIED = 77  # the policy or the admin socket refuses this user
    CONFIG = 78  # the configuration, or a root key that it names, is wrong
