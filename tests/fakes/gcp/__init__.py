"""A Google Cloud KMS for tests: the official messages over gRPC with TLS, and the token endpoints around it.

    keys.py       key rings, keys, versions, import jobs; their crypto by `cryptography`
    service.py    the gRPC methods
    identity.py   who calls: self-signed JWTs, access tokens, IAM permissions
    endpoints.py  HTTP: metadata server, security token service, impersonation, and the control that tests use
    faults.py     what goes wrong on purpose
    server.py     all of it, in one process

`python -m tests.fakes.gcp FOLDER` serves until its parent ends. Semantics are those of
https://cloud.google.com/kms/docs/reference/rpc/google.cloud.kms.v1; modules name the other pages they follow.
"""
