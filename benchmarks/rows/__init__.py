"""The rows of the table, one module a question. `MEASUREMENTS` is their order."""

from collections.abc import Callable
from typing import Final

from benchmarks.rows import (
    aws,
    backfill,
    coalescing,
    fairness,
    footprint,
    isolation,
    native,
    orm,
    pkcs11,
    providers,
    python,
)
from benchmarks.stage import Stage
from benchmarks.table import Row

MEASUREMENTS: Final[dict[str, Callable[[Stage], list[Row]]]] = {
    "native": native.measure,
    "python": python.measure,
    "coalescing": coalescing.measure,
    "isolation": isolation.measure,
    "footprint": footprint.measure,
    "fairness": fairness.measure,
    "pkcs11": pkcs11.measure,
    "aws": aws.measure,
    "providers": providers.measure,
    "orm": orm.measure,
    "backfill": backfill.measure,
}
