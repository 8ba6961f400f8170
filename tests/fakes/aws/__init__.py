"""An AWS KMS that is quick and late by a set time: for figures, which moto and MiniStack are too slow for.

What it knows, it does as the KMS API reference says (https://docs.aws.amazon.com/kms/latest/APIReference/), seals with
AES-256-GCM of `cryptography`, and does not check signatures.
"""
