"""Runs migrations over the connection that the coordinator gives; there is no other way to run them."""

from alembic import context

from agent.coordinator.db.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
