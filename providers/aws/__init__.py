"""AWS KMS: the key-encryption key lives in the service, and every wrap and unwrap is a call to it.

options ── what the section `hsm` may say
provider ── the sixteen operations
   ├── client ── the SDK (aiobotocore), and nothing else of the package imports it
   │      ├── transport ── HTTP connections for it, pooled and counted
   │      ├── credentials ── roles, web identities, access keys
   │      └── refusals ── what each error of the service means
   ├── custody ── making, importing, deleting keys, and their policies
   ├── trail ── CloudTrail
   └── names ── key identifiers, and what a wrap records of them
"""

from __future__ import annotations

from pathlib import Path

from providers.aws.options import AwsOptions, contradictions
from providers.aws.provider import AwsProvider

__all__ = ["OPTIONS", "AwsProvider", "build", "problems"]

OPTIONS = AwsOptions
problems = contradictions


def build(options: AwsOptions, base: Path) -> AwsProvider:
    """Make the provider; the SDK is imported and credentials are read by `initialize`."""
    return AwsProvider(options, base)
