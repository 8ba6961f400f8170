"""Settings for Django's own tests, as those that it ships for SQLite, with `keyside.django` and a sidecar."""

from __future__ import annotations

import os

SECRET_KEY = "for tests alone"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
USE_TZ = False
KEYSIDE = {"SOCKET": os.environ["KEYSIDE_SOCKET"], "UNBATCHED": "error"}
_SQLITE = {"ENGINE": "django.db.backends.sqlite3"}
_POSTGRESQL = {
    "ENGINE": "django.db.backends.postgresql",
    "HOST": os.environ.get("TEST_POSTGRESQL", ""),
    "USER": "test",
}
if os.environ.get("TEST_POSTGRESQL"):
    DATABASES = {"default": _POSTGRESQL | {"NAME": "one"}, "other": _POSTGRESQL | {"NAME": "other"}}
else:
    DATABASES = {"default": _SQLITE, "other": _SQLITE}
