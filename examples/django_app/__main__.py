"""The example from end to end, with a sidecar and a database of its own: python -m examples.django_app"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import django

from examples.sidecar import sidecar

KEYRINGS = {"persons": True, "measures": False}


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="keyside-example-") as name, sidecar(Path(name), KEYRINGS) as path:
        os.environ["DJANGO_SETTINGS_MODULE"] = "examples.django_app.settings"
        os.environ["KEYSIDE_SOCKET"] = path
        os.environ["REGISTER_DATABASE"] = f"{name}/register.sqlite"
        django.setup()
        # models can be imported only from here on
        from examples.django_app import show

        show.store()
        show.use()
        show.attack()
        show.administrate()
        show.encrypt_a_column()
        show.grep(Path(name))
    return 0


if __name__ == "__main__":
    sys.exit(main())
