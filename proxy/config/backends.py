"""The section `hsm` that `keyside init --provider NAME` writes: the smallest one that works, and what is often added.

What differs from one installation to the next is a <PLACEHOLDER>, and a configuration that still has one is refused.
Lines that begin with `#` hold defaults or further settings.
"""

from collections.abc import Mapping
from typing import Final

_LOCAL: Final = """\
  provider: LOCAL
  keyFile: {key_file}
"""

_AWS: Final = """\
  provider: AWS_KMS
  kek: alias/keyside             # key id, key ARN, alias/NAME or alias ARN
  connection:
    region: <REGION>             # of the key
  credentials:
    type: IAM_ROLE               # who this machine, container or pod is; or TOKEN, an access key
#    data: {roleArn: "arn:aws:iam::123456789012:role/keyside"}   # a role to take on
"""

_GCP: Final = """\
  provider: GCP_KMS
  kek: projects/<PROJECT>/locations/<LOCATION>/keyRings/keyside/cryptoKeys/keyside
  credentials:
    type: IAM_ROLE               # who this machine or workload is; or SERVICE_PRINCIPAL, a service account's key
#    data: {serviceAccount: keyside@<PROJECT>.iam.gserviceaccount.com}   # a service account to act as
"""

_AZURE: Final = """\
  provider: AZURE_KEY_VAULT
  kek: keyside                   # a key's name: its newest version wraps; on a vault keyside-signing signs
  connection:
    endpoint: https://<VAULT>.vault.azure.net   # or https://<HSM>.managedhsm.azure.net
  credentials:
    type: IAM_ROLE               # managed or workload identity; or SERVICE_PRINCIPAL, CERTIFICATE, TOKEN
#    data: {clientId: 00000000-0000-0000-0000-000000000000}   # of a user-assigned identity
"""

_PKCS11: Final = """\
  provider: {provider}
  kek: keyside                   # the key's label, CKA_LABEL
  connection:
    partition: <PARTITION>       # the token's label; or slot: 0
#    libraryPath: {library}   # where its installer puts it
  credentials:
    type: TOKEN                  # or CERTIFICATE, for a network HSM: its files are checked as well
    data: {{pinFile: /run/secrets/keyside-pin}}   # mode 0600; or pinEnv, pinCredential
"""

_VAULT: Final = """\
  provider: VAULT_TRANSIT
  kek: keyside                   # the transit key's name
  connection:
    endpoint: https://<HOST>:8200
#    tls: {caFile: /etc/keyside/vault-ca.pem}
  credentials:
    type: SERVICE_PRINCIPAL      # AppRole; or TOKEN, CERTIFICATE, IAM_ROLE (Kubernetes)
    data: {roleId: <ROLE-ID>, secretIdFile: /run/secrets/keyside-secret-id}   # mode 0600; or secretIdEnv
#  mount: transit
"""

_BOUNDS: Final = """\
#  performance:
#    connectionPoolSize: 8       # calls at once
#    requestTimeout: 3000        # milliseconds, retries included
#    retryPolicy: {maxRetries: 3, backoffMultiplier: 2.0}
"""

_SECTIONS: Final[Mapping[str, str]] = {
    "LOCAL": _LOCAL,
    "AWS_KMS": _AWS,
    "AZURE_KEY_VAULT": _AZURE,
    "GCP_KMS": _GCP,
    "LUNA_HSM": _PKCS11.format(provider="LUNA_HSM", library="/usr/safenet/lunaclient/lib/libCryptoki2_64.so"),
    "THALES_HSM": _PKCS11.format(provider="THALES_HSM", library="/opt/safenet/protecttoolkit7/ptk/lib/libcryptoki.so"),
    "VAULT_TRANSIT": _VAULT,
}


def hsm_yaml(provider: str, key_file: object) -> str:
    """The lines of the section, without its name. `key_file`: for LOCAL. Raises KeyError for an unknown provider."""
    section = _SECTIONS[provider]
    return (section.format(key_file=key_file) if provider == "LOCAL" else section) + _BOUNDS
