"""Management commands of encrypted columns."""
