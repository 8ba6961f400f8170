"""Living data: columns that are encrypted, re-encrypted or decrypted while the application runs. Free of any ORM.

A job walks a table by primary key, a page a transaction. Each row is written only if it still holds what was read, so
a concurrent writer wins and the row is met again. What is done is seen in the data itself: a job that was killed is
started again, goes on, and does nothing twice.

    job = Backfill(field, indexes)              or Reencrypt(field), Decrypt(field)
    run(job, rows, send, Options())             rows: what an ORM makes of `Rows`
"""

from keyside.living.jobs import Backfill, Changes, Decrypt, Job, Page, Reencrypt
from keyside.living.progress import Bar, Progress
from keyside.living.running import Options, Rows, run
from keyside.living.status import ColumnStatus, status_of

__all__ = [
    "Backfill",
    "Bar",
    "Changes",
    "ColumnStatus",
    "Decrypt",
    "Job",
    "Options",
    "Page",
    "Progress",
    "Reencrypt",
    "Rows",
    "run",
    "status_of",
]
