"""Migrations: what they write down, what they make of tables, and that their models read and write as well."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.db import IntegrityError, connections, migrations, models, transaction
from django.db.migrations.autodetector import MigrationAutodetector
from django.db.migrations.graph import MigrationGraph
from django.db.migrations.state import ModelState, ProjectState
from django.db.migrations.writer import MigrationWriter
from django.test.utils import isolate_apps
from keyside.django import BlindIndex, BlindIndexField, EncryptedField, from_context, last, whole
from keyside.django.altering import IndexIncomplete
from keyside.django.living import backfill, status
from keyside.fields import FieldUnwritable, NotSearchable
from keyside.testing import assert_round_trips

from tests.orm.django.clinics.models import Card, Patient

APP = "tests.orm.django.clinics"


def digits_alone(value: str) -> str:
    return value.replace(" ", "")


def state_of(*chosen: type[models.Model]) -> ProjectState:
    state = ProjectState()
    for model in chosen:
        state.add_model(ModelState.from_model(model))
    return state


def changes(before: ProjectState, after: ProjectState) -> list[Any]:
    found = MigrationAutodetector(before, after)._detect_changes(graph=MigrationGraph())
    return [operation for migration in found.get("clinics", []) for operation in migration.operations]


def model_with(**fields: models.Field) -> type[models.Model]:
    class Meta:
        app_label = "clinics"
        db_table = "people_of_migrations"

    return type("Person", (models.Model,), {"__module__": __name__, "Meta": Meta, **fields})


def encrypted(**options: Any) -> EncryptedField:
    return EncryptedField(models.CharField(max_length=9, null=True), **{"keyring": "k", **options})


@isolate_apps(APP)
def test_what_is_written_can_be_read() -> None:
    chosen = [
        BlindIndex(unique=True, normalize="casefold"),
        BlindIndex(name="name_end", normalize=last(3)),
        BlindIndex(name="name_own", normalize=digits_alone, context="shared", partitioned=True),
    ]
    person = model_with(
        tenant=models.IntegerField(),
        name=encrypted(partition="tenant", bind=["id"], blind_index=chosen, storage="text", migrating="plaintext"),
        note=EncryptedField(models.TextField(), keyring="k", partition=from_context("who"), on_error="none"),
        wide=encrypted(storage=models.CharField(max_length=300), context="old.name"),
    )
    operations = changes(ProjectState(), state_of(person))
    migration = type("Migration", (migrations.Migration,), {"operations": operations})("0001", "clinics")
    text = MigrationWriter(migration, include_header=False).as_string()
    assert "keyside.fields.from_context('who')" in text
    assert "normalize='last(3)'" in text
    assert "blind_index" not in text
    scope: dict[str, Any] = {}
    exec(text, scope)
    state = ProjectState()
    for operation in scope["Migration"].operations:
        operation.state_forwards("clinics", state)
    again = state.apps.get_model("clinics", "Person")
    assert changes(state, state_of(person)) == []
    for name in ("name", "note", "wide"):
        old, new = person._meta.get_field(name), again._meta.get_field(name)
        for attribute in ("table", "column", "keyring", "partition", "bind", "stage", "storage", "on_error", "prefix"):
            assert getattr(old.declaration, attribute) == getattr(new.declaration, attribute), (name, attribute)
        assert [index.name for index, _ in old.indexes] == [index.name for index, _ in new.indexes]
    assert [index.normalize.apply("A 1234") for _, index in again._meta.get_field("name").indexes] == [
        "a 1234",
        "234",
        "A1234",
    ]


@isolate_apps(APP)
def test_a_function_is_a_part_unless_it_is_said_to_keep_the_whole() -> None:
    person = model_with(
        name=encrypted(blind_index=BlindIndex(normalize=digits_alone)),
        other=encrypted(blind_index=BlindIndex(normalize=whole(lambda value: value))),
    )
    with pytest.raises(NotSearchable, match=r"compare name_index \(a function counts .* @keyside.fields.whole\)"):
        str(person.objects.filter(name="1").query)
    assert person._meta.get_field("name").indexes[0][1].normalize.whole is False
    assert person._meta.get_field("other").indexes[0][1].normalize.whole is True


@isolate_apps(APP)
def test_an_index_is_added_and_taken_away() -> None:
    bare = model_with(name=encrypted())
    with isolate_apps(APP):
        indexed = model_with(name=encrypted(blind_index=BlindIndex()))
    added = changes(state_of(bare), state_of(indexed))
    assert [(type(one).__name__, one.name) for one in added] == [("AddField", "name_index")]
    removed = changes(state_of(indexed), state_of(bare))
    assert [(type(one).__name__, one.name) for one in removed] == [("RemoveField", "name_index")]


@pytest.mark.filterwarnings("ignore::keyside.django.altering.IndexIncomplete")
@isolate_apps(APP)
def test_tables_are_changed_and_rows_stay(database: str) -> None:
    connection = connections[database]
    stages: list[dict[str, models.Field]] = [
        {"name": encrypted()},
        {"name": encrypted(blind_index=BlindIndex())},
        {"name": encrypted(blind_index=BlindIndex(unique=True), migrating="rotating")},
        {"name": encrypted(blind_index=BlindIndex(unique=True)), "other": encrypted(storage="text")},
        {"name": encrypted(), "other": encrypted(storage="text")},
    ]
    state = ProjectState()
    for number, fields in enumerate(stages):
        with isolate_apps(APP):
            wanted = state_of(model_with(**fields))
        for operation in changes(state, wanted):
            after = state.clone()
            operation.state_forwards("clinics", after)
            with connection.schema_editor() as editor:
                operation.database_forwards("clinics", editor, state, after)
            state = after
        person = state.apps.get_model("clinics", "Person")
        with assert_round_trips(max=1):
            person.objects.using(database).create(name=f"n{number}")
        names = set(person.objects.using(database).values_list("name", flat=True))
        assert names == {f"n{n}" for n in range(number + 1)}
        if number in (1, 2, 3):
            found = person.objects.using(database).filter(name=f"n{number}")
            assert found.update(name=f"n{number}") == 1
    with connection.schema_editor() as editor:
        editor.delete_model(state.apps.get_model("clinics", "Person"))


@isolate_apps(APP)
def test_models_that_inherit_from_an_abstract_one() -> None:
    class Base(models.Model):
        tenant = models.IntegerField()
        name = encrypted(partition="tenant", blind_index=BlindIndex())

        class Meta:
            app_label = "clinics"
            abstract = True

    class One(Base):
        class Meta:
            app_label = "clinics"

    class Two(Base):
        class Meta:
            app_label = "clinics"

    for model in (One, Two):
        assert [field.name for field in model._meta.local_fields] == ["id", "tenant", "name", "name_index"]
        field: Any = model._meta.get_field("name")
        assert field.declaration.table == model._meta.db_table
        assert field.inner.model is model
        ((index, declared),) = field.indexes
        assert index.model is model
        assert declared.table == model._meta.db_table


def test_models_are_copied_and_cloned() -> None:
    for model in (Card, Patient):
        state = state_of(model, *({Patient._meta.get_field("clinic").related_model} if model is Patient else ()))
        again = state.apps.get_model("clinics", model.__name__)
        assert [f.name for f in again._meta.local_fields] == [f.name for f in model._meta.local_fields]


def test_an_unknown_normalisation_is_found_at_once() -> None:
    with pytest.raises(ValueError, match="expected one of"):
        BlindIndex(normalize="unknown")


class Tables:
    """A table `people_of_migrations` that migrations make and alter, as `migrate` does."""

    def __init__(self, alias: str) -> None:
        self.alias = alias
        self.state = ProjectState()

    def migrate(self, *operations: Any, model: str = "Person") -> Any:
        """The manager of the model as it is after these operations."""
        for operation in operations:
            after = self.state.clone()
            operation.state_forwards("clinics", after)
            with connections[self.alias].schema_editor() as editor:
                operation.database_forwards("clinics", editor, self.state, after)
            self.state = after
        return self.state.apps.get_model("clinics", model).objects.using(self.alias)

    def rename(self, old: str, new: str) -> Any:
        return self.migrate(migrations.RenameField("person", old, new))

    def add(self, **fields: models.Field) -> Any:
        return self.migrate(*[migrations.AddField("person", name, field) for name, field in fields.items()])

    def alter(self, **fields: models.Field) -> Any:
        return self.migrate(*[migrations.AlterField("person", name, field) for name, field in fields.items()])


@pytest.fixture
def tables(database: str) -> Iterator[Tables]:
    made = Tables(database)
    id_ = ("id", models.BigAutoField(primary_key=True))
    made.migrate(migrations.CreateModel("Person", [id_], {"db_table": "people_of_migrations"}))
    yield made
    with connections[database].schema_editor() as editor:
        editor.delete_model(made.state.apps.get_model("clinics", "Person"))


NEEDED = {
    "nullable": EncryptedField(models.CharField(max_length=9, null=True, default="d"), keyring="k"),
    "default": EncryptedField(models.CharField(max_length=9, default="d"), keyring="k"),
    "blank": EncryptedField(models.CharField(max_length=9, blank=True), keyring="k"),
    "nothing": EncryptedField(models.IntegerField(), keyring="k"),
    "text": EncryptedField(models.CharField(max_length=9, default="d"), keyring="k", storage="text"),
    "plain": EncryptedField(models.CharField(max_length=9, default="d"), keyring="k", migrating="plain"),
}


@pytest.mark.parametrize("name", NEEDED)
def test_a_column_that_rows_would_need_a_default_in_is_refused(tables: Tables, name: str) -> None:
    field: Any = NEEDED[name]
    tables.migrate().create()
    with pytest.raises(FieldUnwritable, match=rf"people_of_migrations\.{name}: .*with null=True") as caught:
        tables.add(**{name: field})
    assert "'d'" not in str(caught.value)
    rows = tables.migrate()
    assert [model_field.name for model_field in rows.model._meta.fields] == ["id"]
    rows.all().delete()
    rows = tables.add(**{name: field})
    rows.create(**{name: 5})
    assert str(getattr(rows.get(), name)) == "5"


def test_what_is_null_is_filled_before_a_column_is_not_null(tables: Tables) -> None:
    rows = tables.add(name=encrypted(blind_index=BlindIndex()), name_index=BlindIndexField("name"))
    rows.bulk_create([rows.model(name="a"), rows.model()])
    wanted = EncryptedField(models.CharField(max_length=9, default="d"), keyring="k")
    with pytest.raises(FieldUnwritable, match="fill it"):
        tables.alter(name=wanted)
    rows = tables.migrate()
    assert rows.filter(name=None).update(name="d") == 1
    rows = tables.alter(name=wanted)
    assert [rows.filter(name=name).count() for name in ("a", "d")] == [1, 1]
    assert rows.create().name == "d"


def test_an_index_is_renamed_with_the_name_that_it_was_computed_for(tables: Tables) -> None:
    rows = tables.add(name=encrypted(), name_index=BlindIndexField("name", unique=True))
    rows.create(name="a")
    with pytest.raises(FieldUnwritable, match=r"context='people_of_migrations\.name_index' in an AlterField before"):
        tables.rename("name_index", "name_hash")
    tables.alter(name_index=BlindIndexField("name", unique=True, context="people_of_migrations.name_index"))
    rows = tables.rename("name_index", "name_hash")
    assert rows.filter(name="a").count() == 1
    with pytest.raises(IntegrityError), transaction.atomic(using=tables.alias):
        rows.create(name="a")
    # both, as the manual says it
    context = "people_of_migrations.name_index"
    tables.rename("name_hash", "ssn_hash")
    tables.rename("name", "ssn")
    rows = tables.alter(
        ssn=encrypted(context="people_of_migrations.name"),
        ssn_hash=BlindIndexField("ssn", unique=True, context=context),
    )
    assert rows.get(ssn="a").ssn == "a"


def test_a_table_is_renamed_with_the_names_that_its_indexes_were_computed_for(tables: Tables) -> None:
    rows = tables.add(name=encrypted(), name_index=BlindIndexField("name"), other=encrypted())
    rows.create(name="a")
    renamed = migrations.AlterModelTable("person", "people_renamed")
    with pytest.raises(FieldUnwritable, match=r"context='people_of_migrations\.name_index' in an AlterField before"):
        tables.migrate(renamed)
    rows = tables.alter(
        name=encrypted(context="people_of_migrations.name"),
        name_index=BlindIndexField("name", context="people_of_migrations.name_index"),
    )
    rows = tables.migrate(renamed)
    assert rows.get(name="a").name == "a"
    rows = tables.migrate(migrations.RenameModel("person", "human"), model="Human")
    assert rows.get(name="a").name == "a"
    tables.migrate(migrations.RenameModel("human", "person"), migrations.AlterModelTable("person", "people_2"))
    tables.migrate(migrations.AlterModelTable("person", "people_of_migrations"))


def test_an_index_is_not_altered_into_one_that_finds_nothing(tables: Tables) -> None:
    rows = tables.add(name=encrypted(), name_index=BlindIndexField("name"))
    tables.alter(name_index=BlindIndexField("name", "casefold"))  # nobody has one yet
    rows = tables.alter(name_index=BlindIndexField("name"))
    rows.create(name="a")
    for other in (BlindIndexField("name", "casefold"), BlindIndexField("name", partitioned=True)):
        with pytest.raises(FieldUnwritable, match="RemoveField and AddField it, then run keyside_backfill"):
            tables.alter(name_index=other)
    assert tables.alter(name_index=BlindIndexField("name", unique=True)).get(name="a").name == "a"


def test_an_index_that_is_added_to_rows_warns_until_the_backfill(tables: Tables) -> None:
    tables.add(name=encrypted(), other=encrypted()).create(name="a")
    with pytest.warns(IndexIncomplete, match=r"`keyside_backfill clinics\.Person\.name` is through"):
        rows = tables.add(name_index=BlindIndexField("name"))
    rows = tables.add(other_index=BlindIndexField("other"))  # which has no values
    field = rows.model._meta.get_field("name")
    assert rows.filter(name="a").count() == 0
    assert status(field, using=tables.alias).unindexed == {"name_index": 1}
    assert backfill(field, using=tables.alias).changed == 1
    assert rows.filter(name="a").count() == 1
    assert status(field, using=tables.alias).unindexed == {"name_index": 0}
    tables.migrate(migrations.RemoveField("person", "name_index"))


def test_sql_of_migrations_asks_no_table(databases: None) -> None:
    after = ProjectState()
    migrations.CreateModel("Person", [("id", models.BigAutoField(primary_key=True))]).state_forwards("clinics", after)
    before, operation = after.clone(), migrations.AddField("person", "name", NEEDED["default"])
    operation.state_forwards("clinics", after)
    with connections["postgresql"].schema_editor(collect_sql=True) as editor:
        operation.database_forwards("clinics", editor, before, after)
    assert editor.collected_sql == ['ALTER TABLE "clinics_person" ADD COLUMN "name" bytea NOT NULL;']
