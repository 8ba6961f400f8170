"""Who holds the master keys: one interface, one module or folder a back end.

    from providers import WrapContext, create

    provider = create({"provider": "LOCAL", "keyFile": "data/root.key"}, base=Path("/etc/keyside"))
    await provider.initialize()
    wrapped = await provider.wrap_key(key, WrapContext(key_id, "users", "42", "field"))

Importing this package imports no back end and no SDK; `create` imports the one that is configured.
"""

from providers.capabilities import (
    MAX_PLAINTEXT_BYTES,
    AuditRecord,
    Capability,
    Ciphertext,
    ComplianceInfo,
    DeletesKeys,
    Encrypts,
    GeneratesKeys,
    ImportsKeys,
    KeepsAuditLogs,
    KeepsSessions,
    KeyReference,
    KeySpecification,
    ReportsCompliance,
    Session,
    Signature,
    Signs,
)
from providers.errors import (
    Closed,
    ConfigurationInvalid,
    CredentialsInvalid,
    Denied,
    ExportRefused,
    ForeignWrap,
    InputRefused,
    KeyDisabled,
    NotFound,
    Problem,
    ProviderError,
    RetryableError,
    Tampered,
    Throttled,
    Timeout,
    Unavailable,
)
from providers.interface import DATA_KEY_BYTES, Description, Health, HealthStatus, Probe, Provider, WrappedKey
from providers.pool import PoolUsage
from providers.registry import create, options_problems, unbuilt
from providers.wrap_context import Purpose, WrapContext

__all__ = [
    "DATA_KEY_BYTES",
    "MAX_PLAINTEXT_BYTES",
    "AuditRecord",
    "Capability",
    "Ciphertext",
    "Closed",
    "ComplianceInfo",
    "ConfigurationInvalid",
    "CredentialsInvalid",
    "DeletesKeys",
    "Denied",
    "Description",
    "Encrypts",
    "ExportRefused",
    "ForeignWrap",
    "GeneratesKeys",
    "Health",
    "HealthStatus",
    "ImportsKeys",
    "InputRefused",
    "KeepsAuditLogs",
    "KeepsSessions",
    "KeyDisabled",
    "KeyReference",
    "KeySpecification",
    "NotFound",
    "PoolUsage",
    "Probe",
    "Problem",
    "Provider",
    "ProviderError",
    "Purpose",
    "ReportsCompliance",
    "RetryableError",
    "Session",
    "Signature",
    "Signs",
    "Tampered",
    "Throttled",
    "Timeout",
    "Unavailable",
    "WrapContext",
    "WrappedKey",
    "create",
    "options_problems",
    "unbuilt",
]
