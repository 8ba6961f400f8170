"""What the schema says in each dialect, and what that costs the ones that are not used."""

import subprocess
import sys

from sqlalchemy import create_mock_engine, make_url

from proxy.keystore.schema import metadata


def ddl(url: str) -> list[str]:
    statements: list[str] = []
    dialect = make_url(url).get_dialect()()
    engine = create_mock_engine(url, lambda sql, *_, **__: statements.append(str(sql.compile(dialect=dialect))))
    metadata.create_all(engine, checkfirst=False)
    return statements


def test_one_active_key_a_scope_is_a_partial_unique_index_in_both_dialects() -> None:
    for url in ("sqlite://", "postgresql://"):
        (index,) = [statement for statement in ddl(url) if "uq_data_keys_active" in statement]
        assert index.startswith("CREATE UNIQUE INDEX")
        assert index.endswith("WHERE state = 'active'"), url


def test_a_sidecar_on_sqlite_does_not_load_the_postgresql_dialect() -> None:
    code = "import sys, proxy.keystore; sys.exit('sqlalchemy.dialects.postgresql' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
