"""Encrypted columns, free of any ORM: what is declared, how a chunk of rows is read or written in one round trip.

`keyside.sqlalchemy` and `keyside.django` stand on this; docs/orm/foundations.md tells how.
"""

from keyside.fields.batch import RowKeys, Stored, Unsealed, open_chunk, open_one, open_slices, renew, seal, seal_columns
from keyside.fields.declaration import Field, Index, OnFieldError, Partition, Place, Stage, Storage, stage_of
from keyside.fields.errors import (
    BatchingOff,
    BindingMissing,
    FieldError,
    FieldRefused,
    FieldUnavailable,
    FieldUnreadable,
    FieldUnwritable,
    NotInstalled,
    NotSearchable,
    UnbatchedCall,
    UnbatchedWarning,
)
from keyside.fields.exchange import Replies, Send, Sender, Unbatched, counted, note_round_trip, note_unbatched
from keyside.fields.normalize import Normalization, Normalize, last, normalization, whole
from keyside.fields.placeholder import MASK, Placeholder
from keyside.fields.scope import FromContext, context, current, from_context, partition_text

__all__ = [
    "MASK",
    "BatchingOff",
    "BindingMissing",
    "Field",
    "FieldError",
    "FieldRefused",
    "FieldUnavailable",
    "FieldUnreadable",
    "FieldUnwritable",
    "FromContext",
    "Index",
    "Normalization",
    "Normalize",
    "NotInstalled",
    "NotSearchable",
    "OnFieldError",
    "Partition",
    "Place",
    "Placeholder",
    "Replies",
    "RowKeys",
    "Send",
    "Sender",
    "Stage",
    "Storage",
    "Stored",
    "Unbatched",
    "UnbatchedCall",
    "UnbatchedWarning",
    "Unsealed",
    "context",
    "counted",
    "current",
    "from_context",
    "last",
    "normalization",
    "note_round_trip",
    "note_unbatched",
    "open_chunk",
    "open_one",
    "open_slices",
    "partition_text",
    "renew",
    "seal",
    "seal_columns",
    "stage_of",
    "whole",
]
