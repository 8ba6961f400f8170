"""A register of persons in Django whose personal columns are encrypted; see README.md."""
