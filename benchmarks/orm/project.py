"""Settings of the Django project whose rows are measured; the environment says where things are."""

from __future__ import annotations

import os

SECRET_KEY = "for measuring alone"
USE_TZ = True
TIME_ZONE = "UTC"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = ["keyside.django", "benchmarks.orm.people"]
KEYSIDE = {"SOCKET": os.environ.get("KEYSIDE_SOCKET", ""), "UNBATCHED": "error", "TIMEOUT": 60}
DATABASES = {
    "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ.get("BENCH_SQLITE", ":memory:")},
    "postgresql": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": "postgres",
        "USER": "test",
        "HOST": os.environ.get("BENCH_POSTGRESQL", ""),
    },
}
