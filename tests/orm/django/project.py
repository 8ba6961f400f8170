"""Settings of a Django project for the tests: SQLite in a file, PostgreSQL and MariaDB on private sockets."""

from __future__ import annotations

import os

import pymysql

pymysql.install_as_MySQLdb()  # the name by which Django's back end knows its driver

SECRET_KEY = "for tests alone"
USE_TZ = True
TIME_ZONE = "UTC"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.postgres",
    "keyside.django",
    "tests.orm.django.citizens",
    "tests.orm.django.clinics",
]
KEYSIDE = {"SOCKET": os.environ.get("KEYSIDE_SOCKET", ""), "UNBATCHED": "allow"}
DATABASES = {
    "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ.get("TEST_SQLITE", ":memory:")},
    "postgresql": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": "postgres",
        "USER": "test",
        "HOST": os.environ.get("TEST_POSTGRESQL", ""),
    },
    "mariadb": {
        "ENGINE": "django.db.backends.mysql",
        "NAME": "test",
        "USER": "root",
        "OPTIONS": {"unix_socket": os.environ.get("TEST_MARIADB", ""), "charset": "utf8mb4"},
    },
}
ROOT_URLCONF = "tests.orm.django.citizens.urls"
STATIC_URL = "static/"
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
