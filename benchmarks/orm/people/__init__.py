"""Django's tables, beside those of benchmarks.orm.models."""
