"""A register of persons whose personal columns are encrypted; see README.md."""
