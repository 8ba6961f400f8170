"""What Alembic runs first: it gets its connection, and the transaction around it, from proxy.keystore.versions."""

from alembic import context

context.configure(connection=context.config.attributes["connection"])
context.run_migrations()
