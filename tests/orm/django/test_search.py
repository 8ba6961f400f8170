"""Conditions: what blind indexes answer, in the round trip of the statement, and what is refused."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.db import IntegrityError, connections, models, transaction
from django.db.models import Count, Exists, F, Max, OuterRef, Q, Subquery
from django.db.models.functions import Concat, Lower, Now
from django.test.utils import isolate_apps
from keyside.django import BlindIndex, EncryptedField, last, whole
from keyside.fields import BindingMissing, NotSearchable, Stage
from keyside.testing import assert_round_trips

from tests.orm.django.citizens.models import created
from tests.orm.django.clinics.models import Badge, Card, Clinic, Everything, Letter, Patient, patient


@pytest.fixture
def cards(database: str) -> str:
    Card.objects.bulk_create([Card(number=f"4111 {n:04}", limit=n) for n in range(5)] + [Card(number=None)])
    return database


def numbers(*conditions: Any, **equal: Any) -> set[str | None]:
    return set(Card.objects.filter(*conditions, **equal).values_list("number", flat=True))


def test_equality(cards: str) -> None:
    with assert_round_trips(max=2):
        assert numbers(number="41110003") == {"4111 0003"}
    with assert_round_trips(max=2):
        found = numbers(Q(number="4111-0001") | Q(last_four="0002"), number__in=["41110001", "4111 0002", None])
    assert found == {"4111 0001", "4111 0002"}
    assert numbers(limit=3, number__isnull=False) == {"4111 0003"}
    assert numbers(number=None) == numbers(number__isnull=True) == {None}
    assert numbers(number__in=[]) == set()
    assert numbers(last_four__in=["0000", "0004"]) == {"4111 0000", "4111 0004"}
    with assert_round_trips(max=1):
        assert Card.objects.filter(number="41110003").exists()
    with assert_round_trips(max=1):
        assert Card.objects.filter(number="41110003").count() == 1


def test_negation_knows_null(cards: str) -> None:
    rest = {"4111 0000", "4111 0002", "4111 0003", "4111 0004"}
    assert numbers(~Q(number="41110001")) == {*rest, None}
    assert set(Card.objects.exclude(number="41110001").values_list("number", flat=True)) == {*rest, None}
    Card.objects.create(number="no digits at all")  # it has no index, and is unequal all the same
    assert "no digits at all" in numbers(~Q(number="41110001"))


def test_a_value_without_an_index_is_no_silent_miss(cards: str) -> None:
    with pytest.raises(NotSearchable, match=r"normalisation \(digits\), so that no row can match: look before"):
        numbers(number="letters")


def test_through_relations(database: str) -> None:
    Clinic.objects.bulk_create([Clinic(id=1, name="a"), Clinic(id=2, name="b")])
    Patient.objects.bulk_create([patient(n, 1 + n % 2) for n in range(10)])
    found = Clinic.objects.filter(patients__email="p3@EXAMPLE.org")
    assert [clinic.name for clinic in found] == ["b"]
    assert Clinic.objects.exclude(patients__email="p3@example.org").get().name == "a"
    assert Clinic.objects.filter(patients__email_domain="Example.ORG").distinct().count() == 2
    assert Patient.objects.filter(email__iexact="P3@example.org").count() == 1
    counted = Clinic.objects.annotate(n=Count("patients", filter=Q(patients__email="p3@example.org")))
    assert sorted(clinic.n for clinic in counted) == [0, 1]


@pytest.mark.parametrize(
    ("ask", "told"),
    [
        (lambda: Patient.objects.filter(email__startswith="p"), "startswith .* no substrings; add a BlindIndex"),
        (lambda: Patient.objects.filter(email__icontains="p"), "no substrings"),
        (lambda: Patient.objects.filter(email__regex="p"), "no substrings"),
        (lambda: Patient.objects.filter(email__gt="p"), "no order"),
        (lambda: Card.objects.filter(limit__range=(1, 2)), "no order"),
        (lambda: Patient.objects.filter(born="2000-01-01"), r"born: exact .*blind_index=BlindIndex\(\)"),
        (lambda: Patient.objects.filter(born__year=2000), "year cannot be answered"),
        (lambda: Patient.objects.filter(notes__n=1), "n cannot be answered"),
        (lambda: Card.objects.filter(number__iexact="4"), r"BlindIndex\(normalize=\"casefold\"\)"),
        (lambda: Card.objects.filter(last_four__gt="1"), "knows equality only"),
        (lambda: Patient.objects.order_by("email"), "order_by .* no order; sort in Python"),
        (lambda: Patient.objects.order_by(F("email").desc(nulls_last=True)), "order_by"),
        (lambda: Clinic.objects.order_by("patients__email"), "order_by"),
        (lambda: Patient.objects.annotate(x=Lower("email")), "lower"),
        (lambda: Patient.objects.annotate(x=Concat("email", "email")), "email: (Concat|Coalesce)"),
        (lambda: Patient.objects.order_by(Lower("email")), "lower"),
        (lambda: Patient.objects.filter(email=F("id")), "compare it with plain values"),
        (lambda: Patient.objects.filter(number=F("email")), "exact cannot be answered"),
        (lambda: Patient.objects.filter(email__in=Patient.objects.values("email")), "compare it with plain values"),
        (lambda: Patient.objects.filter(email=Now()), "compare it with plain values"),
        (lambda: Patient.objects.aggregate(x=Max("email")), "Max"),
        (lambda: Patient.objects.aggregate(x=Count("email", distinct=True)), "Count"),
        (lambda: Patient.objects.annotate(m=F("email"))[:9].aggregate(x=Max("m")).values(), "Max"),
        (lambda: Patient.objects.filter(number__in=Patient.objects.values("email")), "in .* a subquery selects it"),
        (lambda: Clinic.objects.filter(pk__in=Patient.objects.values_list(F("email"))), "a subquery selects it"),
        (lambda: Clinic.objects.filter(pk=Subquery(Patient.objects.values("email")[:1])), "a subquery selects it"),
        (lambda: Clinic.objects.order_by(Subquery(Clinic.objects.values("name")[:1])), "a subquery selects it"),
    ],
)
def test_what_ciphertexts_cannot_answer(database: str, ask: Any, told: str) -> None:
    with pytest.raises(NotSearchable, match=told):
        list(ask())


@pytest.mark.parametrize(
    "ask",
    [
        lambda: Card.objects.values("number").annotate(n=Count("pk")),
        lambda: Patient.objects.values("clinic__name").annotate(n=Count("pk")),
        lambda: Clinic.objects.values("pk", "patients__email").annotate(n=Count("patients__pk")),
        lambda: Card.objects.values_list("number").distinct(),
        lambda: Clinic.objects.values_list("name").union(Clinic.objects.values_list("name")),
        lambda: Clinic.objects.values_list("name").intersection(Clinic.objects.values_list("name")),
        lambda: Clinic.objects.values_list("pk", "name").union(Card.objects.values_list("pk", "number"), all=True),
        lambda: Clinic.objects.values_list("pk").union(Card.objects.values_list("number"), all=True),
        lambda: Card.objects.values_list("number", "pk").union(Card.objects.values_list("pk", "number"), all=True),
    ],
)
def test_equal_values_are_not_told_apart(cards: str, ask: Any) -> None:
    with pytest.raises(NotSearchable, match=r"(values|distinct|a set operation).* cannot be answered"):
        list(ask())


def test_rows_are_taken_together_by_their_key(cards: str) -> None:
    """Then it does not matter that ciphertexts of equal values differ."""
    Clinic.objects.bulk_create([Clinic(id=1, name="a"), Clinic(id=2, name="a")])
    Patient.objects.bulk_create([patient(n, 1 + n % 2) for n in range(4)])
    grouped = Patient.objects.values_list("clinic", "clinic__name").annotate(n=Count("pk"))
    assert sorted(grouped) == [(1, "a", 2), (2, "a", 2)]
    counted = Clinic.objects.annotate(n=Count("patients"))
    assert sorted((one.name, one.n) for one in counted) == [("a", 2), ("a", 2)]
    assert sorted(Clinic.objects.filter(patients__isnull=False).values_list("pk", "name").distinct()) == [
        (1, "a"),
        (2, "a"),
    ]
    assert Patient.objects.values("pk", "clinic__name").distinct().count() == 4
    both = Clinic.objects.order_by()
    assert len(both.union(both.filter(pk=1))) == 2
    assert [one.name for one in both.intersection(both.filter(pk=1))] == ["a"]
    assert sorted(Card.objects.values_list("last_four").annotate(n=Count("pk")).values_list("n", flat=True)) == [1] * 6
    assert Clinic.objects.filter(Exists(Patient.objects.filter(clinic=OuterRef("pk")).values("email"))).count() == 2
    first = Patient.objects.filter(clinic=OuterRef("pk")).order_by("number").values("email")[:1]
    named = Clinic.objects.annotate(first=Subquery(Clinic.objects.filter(pk=OuterRef("pk")).values("name")))
    assert {one.first for one in named} == {"a"}
    with pytest.raises(BindingMissing):
        list(Clinic.objects.annotate(first=Subquery(first)))


def test_index_columns_are_nobodys_values(cards: str) -> None:
    one = Card.objects.filter(number="41110001")
    assert set(one.values().get()) == {"id", "number", "limit"}
    assert one.values_list().get()[1:] == ("4111 0001", 1)
    assert set(one.values("last_four").get()) == {"last_four"}
    assert set(one.annotate(n=Count("pk")).values().get()) == {"id", "number", "limit", "n"}


def test_no_rows_and_conditions_in_sql(cards: str) -> None:
    assert list(Card.objects.none()) == []
    assert Card.objects.none().count() == 0
    assert (Card.objects.none() | Card.objects.filter(number="41110001")).count() == 1
    assert list(Card.objects.filter(Q(pk__in=[]) | Q(number="41110001")).values_list("number")) == [("4111 0001",)]
    assert Card.objects.extra(where=["number IS NULL"]).get().number is None


def test_counts(cards: str) -> None:
    assert Card.objects.aggregate(n=Count("number"))["n"] == 5


def test_uniqueness(database: str) -> None:
    Patient.objects.create(number=1, clinic_id=1, email="A@B.c", id=patient(1).id)
    with pytest.raises(IntegrityError), transaction.atomic():
        Patient.objects.bulk_create([patient(2, email="a@b.C")])
    with pytest.raises(ValidationError) as caught:
        patient(2, email="a@b.C").full_clean(exclude=["clinic", "born", "notes"])
    assert "email" in caught.value.message_dict
    kept = Patient.objects.get()
    kept.full_clean(exclude=["clinic", "born", "notes"])


def test_a_constraint_names_the_index(database: str) -> None:
    Badge.objects.create(clinic_id=1, holder="Ann")
    Badge.objects.create(clinic_id=2, holder="Ann")
    with pytest.raises(IntegrityError), transaction.atomic():
        Badge.objects.create(clinic_id=1, holder="Ann")
    (constraint,) = Badge._meta.constraints
    with pytest.raises(ValidationError):
        constraint.validate(Badge, Badge(clinic_id=1, holder="Ann"), using=database)
    constraint.validate(Badge, Badge(clinic_id=1, holder="Bob"), using=database)


def test_while_plaintext_is_left(database: str) -> None:
    Letter.objects.create(text="Sealed")
    with connections[database].cursor() as cursor:
        cursor.execute("INSERT INTO clinics_letter (text) VALUES (%s), (%s)", ["Open", "open too"])
    assert {letter.text for letter in Letter.objects.all()} == {"Sealed", "Open", "open too"}
    assert Letter.objects.get(text="OPEN").text == "Open"
    assert Letter.objects.filter(text__in=["sealed", "open"]).count() == 2
    assert Letter.objects.exclude(text="open").count() == 2


def halfway(normalize: Any, inner: models.Field | None = None) -> Any:
    field = EncryptedField(
        inner or models.CharField(max_length=50),
        keyring="notes",
        storage="text",
        migrating="plaintext",
        blind_index=BlindIndex(normalize=normalize),
    )
    meta = type("Meta", (), {"app_label": "clinics", "db_table": "half_of_a_way"})
    return type("Half", (models.Model,), {"__module__": __name__, "Meta": meta, "text": field})


@isolate_apps("tests.orm.django.clinics")
@pytest.mark.parametrize("normalize", ["casefold", "trim", "digits", whole(lambda text: text.swapcase())])
def test_plaintext_is_found_as_it_is_spelled_whatever_the_database_knows_of_normalising(
    database: str, normalize: Any
) -> None:
    model = halfway(normalize)
    (warning,) = (problem for problem in model.check() if str(problem.id).startswith("keyside"))
    assert warning.id == "keyside.W002"
    assert "text_index: while rows hold plaintext, searches find those that are spelled as" in warning.msg
    texts = ["ÄB 1", "Straße 2", "\tİb 3 ", "123-45"]
    with created(database, model):
        with connections[database].cursor() as cursor:
            cursor.executemany("INSERT INTO half_of_a_way (text) VALUES (%s)", [[text] for text in texts])
        for text in texts:
            assert [row.text for row in model.objects.filter(text=text)] == [text]
            assert model.objects.filter(text__in=[text, "0"]).count() == 1
            assert model.objects.exclude(text=text).count() == 3
        found = {
            "casefold": {"123-45 ": 1, " äB 1": database == "mariadb", "STRASSE 2": 0},
            "trim": {"123-45 ": 1, "äB 1": 0},
        }
        for text, count in found.get(normalize, {"123-45 ": 0, "12345": 0} if normalize == "digits" else {}).items():
            assert model.objects.filter(text=text).count() == count


@isolate_apps("tests.orm.django.clinics")
@pytest.mark.parametrize("storage", ["text", "bytes"])
def test_an_index_that_the_release_before_left_as_it_was_is_not_believed(database: str, storage: Any) -> None:
    class Half(models.Model):
        text = EncryptedField(
            models.CharField(max_length=50, null=True),
            keyring="notes",
            storage=storage,
            migrating="plain",
            blind_index=BlindIndex(),
        )

        class Meta:
            app_label = "clinics"
            db_table = f"left_in_{storage}"

    with created(database, Half):
        Half.objects.bulk_create([Half(text="before"), Half(text="other"), Half()])
        new = "after" if storage == "text" else b"after"
        old = "before" if storage == "text" else b"before"
        with connections[database].cursor() as cursor:
            cursor.execute(f"UPDATE left_in_{storage} SET text = %s WHERE text = %s", [new, old])
        assert [Half.objects.filter(text=text).count() for text in ("before", "after", "other")] == [0, 1, 1]
        assert [Half.objects.exclude(text=text).count() for text in ("before", "after")] == [3, 2]
        assert Half.objects.filter(text__in=["before", "other"]).count() == 1
        sealed = Half._meta.get_field("text")
        sealed.stage = Stage.DUAL
        sealed._forget()
        assert Half.objects.filter(text="other").update(text="sealed") == 1
        assert [Half.objects.filter(text=text).count() for text in ("other", "sealed", "after")] == [0, 1, 1]
        assert Half.objects.exclude(text="sealed").count() == 2


@pytest.mark.parametrize(("inner", "warned"), [(None, []), (models.UUIDField(), ["keyside.W002"])])
@isolate_apps("tests.orm.django.clinics")
def test_an_exact_index_warns_of_types_that_have_several_spellings(inner: Any, warned: list[str]) -> None:
    found = [problem.id for problem in halfway("exact", inner).check() if str(problem.id).startswith("keyside")]
    assert found == warned


@isolate_apps("tests.orm.django.clinics")
def test_an_index_of_a_part_warns_while_plaintext_is_left() -> None:
    (warning,) = (problem for problem in halfway(last(4)).check() if problem.id == "keyside.W002")
    assert "find those that an index was written for" in warning.msg


def test_other_types_are_equal_by_value(database: str) -> None:
    Card.objects.create(number="1", limit="12.50")
    for same in ("12.5", 12.5, "12.500"):
        assert Card.objects.filter(limit=same).count() == 1
    with pytest.raises(NotSearchable):
        Everything.objects.filter(count=1).exists()


def test_no_statement_shows_what_is_searched(database: str) -> None:
    shown = str(Patient.objects.filter(email="tell@nobody.org", email_domain="nobody.org").query)
    assert "nobody" not in shown
    assert len(re.findall("<encrypted>", shown)) == 2
