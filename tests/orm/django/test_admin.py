"""The admin: values masked, kept and replaced, found by blind index, absent from the change history."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.db import connections
from django.test import Client, RequestFactory
from django.utils.functional import cached_property
from keyside.django.admin import EncryptedAdminMixin
from keyside.testing import assert_encrypted, assert_round_trips

from tests.orm.django.citizens.admin import ClubAdmin, MemberAdmin
from tests.orm.django.citizens.models import Club, Member, created
from tests.orm.django.clinics.models import Card

SSN, OTHER_SSN = "123-45-6789", "987-65-4321"
MEMBERS = "/admin/citizens/member/"
CLUBS = "/admin/citizens/club/"


@pytest.fixture
def member(databases: None) -> Iterator[Member]:
    call_command("migrate", verbosity=0)
    with created("default", Club, Member):
        club = Club.objects.create(name="chess")
        yield Member.objects.create(
            club=club, alias="ann", ssn=SSN, motto="Dare to know", born=date(1990, 5, 17), scan={"x": "secret"}
        )


def browser(name: str, *permissions: str, superuser: bool = True) -> Client:
    user = User.objects.create(username=name, is_staff=True, is_superuser=superuser)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Client()
    client.force_login(user)
    return client


def posted(member: Member, **changes: str) -> dict[str, str]:
    """What the form of a member sends when nothing encrypted is typed."""
    nothing = {"ssn": "", "motto": "", "born": "", "sex": "", "vegan": "unknown", "scan": ""}
    return {"club": str(member.club_id), "alias": member.alias, **nothing, **changes}


def test_lists_and_forms_show_no_encrypted_value(member: Member) -> None:
    clerk = browser("clerk")
    page = clerk.get(MEMBERS).content.decode()
    assert "•••89" in page
    assert "&lt;encrypted&gt;" in page
    assert "May 17, 1990" not in page
    for path in (f"{MEMBERS}{member.pk}/change/", f"{CLUBS}{member.club_id}/change/"):
        form = clerk.get(path).content.decode().replace(str(member), "")
        for secret in (SSN, "Dare to know", "1990-05-17", "secret"):
            assert secret not in form, path
        # the form of a new member among those of a club begins with the default
        assert form.count('value="f" selected') == (2 if path.startswith(CLUBS) else 0)
        assert 'placeholder="&lt;encrypted&gt;"' in form
        assert '<option value="" selected>&lt;encrypted&gt;</option>' in form
        assert '<option value="unknown" selected>&lt;encrypted&gt;</option>' in form
        assert re.findall("<select[^>]*placeholder", form) == []


def test_who_may_see_does(member: Member) -> None:
    officer = browser("officer")
    page = officer.get(MEMBERS).content.decode()
    assert "May 17, 1990" in page
    assert "female" in page
    form = officer.get(f"{MEMBERS}{member.pk}/change/").content.decode()
    for value in (SSN, "Dare to know", "1990-05-17", "secret", 'value="f" selected'):
        assert value in form
    assert "vDateField" in form


def test_who_may_only_view_sees_masks(member: Member) -> None:
    viewer = browser("viewer", "view_member", "view_club", superuser=False)
    for path in (f"{MEMBERS}{member.pk}/change/", f"{CLUBS}{member.club_id}/change/"):
        form = viewer.get(path).content.decode().replace(str(member), "")
        assert "&lt;encrypted&gt;" in form
        assert form.lower().count("social security number") == 1
        for secret in (SSN, "Dare to know", "May 17", "secret"):
            assert secret not in form, path


def test_what_is_left_empty_stays_and_what_is_typed_replaces(member: Member) -> None:
    clerk = browser("clerk")
    path = f"{MEMBERS}{member.pk}/change/"
    answer = clerk.post(path, posted(member, alias="bea"))
    assert answer.status_code == 302, answer.context["errors"]
    fresh = Member.objects.get()
    assert fresh.alias == "bea"
    for name in ("ssn", "motto", "born", "sex", "vegan", "scan"):
        assert getattr(fresh, name) == getattr(member, name), name
    entry = LogEntry.objects.latest("pk")
    assert entry.get_change_message() == "Changed Alias."

    changes = {"ssn": OTHER_SSN, "born": "1991-01-02", "sex": "m", "vegan": "true", "scan": '{"y": 1}'}
    assert clerk.post(path, posted(member, **changes)).status_code == 302
    fresh = Member.objects.get()
    assert (fresh.ssn, fresh.born, fresh.sex) == (OTHER_SSN, date(1991, 1, 2), "m")
    assert (fresh.vegan, fresh.scan, fresh.motto) == (True, {"y": 1}, "Dare to know")
    assert_encrypted(Member, "ssn")

    wrong = clerk.post(path, posted(member, ssn="letters", born="tomorrow"))
    assert wrong.status_code == 200
    assert set(wrong.context["adminform"].form.errors) == {"ssn", "born"}


def test_a_new_object_is_typed_as_ever(member: Member) -> None:
    clerk = browser("clerk")
    new = posted(member, alias="cid", ssn=OTHER_SSN, sex="m", scan="{}")
    missing = clerk.post(f"{MEMBERS}add/", new | {"ssn": ""})
    assert set(missing.context["adminform"].form.errors) == {"ssn"}
    assert clerk.post(f"{MEMBERS}add/", new).status_code == 302
    assert Member.objects.get(alias="cid").ssn == OTHER_SSN


def test_inlines(member: Member) -> None:
    clerk = browser("clerk")
    old = {f"member_set-0-{name}": value for name, value in posted(member, alias="bea").items()}
    added = posted(member, alias="cid", ssn=OTHER_SSN, sex="m", scan="{}")
    new = {f"member_set-1-{name}": v for name, v in added.items()}
    form = {"member_set-TOTAL_FORMS": "2", "member_set-INITIAL_FORMS": "1", "member_set-0-id": str(member.pk)}
    form |= {"name": "go", **old, **new}
    answer = clerk.post(f"{CLUBS}{member.club_id}/change/", form)
    assert answer.status_code == 302, answer.context["errors"]
    assert set(Member.objects.values_list("alias", "ssn")) == {("bea", SSN), ("cid", OTHER_SSN)}


def test_the_change_history_holds_no_encrypted_value(member: Member) -> None:
    clerk = browser("clerk")
    new = posted(member, alias="cid", ssn=OTHER_SSN, sex="m", scan="{}")
    assert clerk.post(f"{MEMBERS}add/", new).status_code == 302
    assert clerk.post(f"{MEMBERS}{member.pk}/change/", posted(member, motto="Carpe diem")).status_code == 302
    inline = {
        "name": "go",
        "member_set-TOTAL_FORMS": "1",
        "member_set-INITIAL_FORMS": "1",
        "member_set-0-id": str(member.pk),
        **{f"member_set-0-{name}": value for name, value in posted(member, motto="Festina lente").items()},
    }
    assert clerk.post(f"{CLUBS}{member.club_id}/change/", inline).status_code == 302
    chosen = {"action": "delete_selected", "_selected_action": [str(member.pk)], "post": "yes"}
    assert clerk.post(MEMBERS, chosen).status_code == 302
    assert not Member.objects.filter(pk=member.pk).exists()
    entries = list(LogEntry.objects.values_list("object_repr", "change_message"))
    assert ("ann (<encrypted>)", "") in entries
    assert len(entries) == 4
    for secret in (SSN, OTHER_SSN, "Carpe", "Festina"):
        assert secret not in repr(entries)
    with connections["default"].cursor() as cursor:
        cursor.execute("SELECT * FROM django_admin_log")
        assert SSN not in repr(cursor.fetchall())


@pytest.mark.parametrize(
    ("term", "found"),
    [
        (SSN, {"ann"}),
        ("123456789", {"ann"}),
        ("an", {"ann"}),
        ("Dare to know", {"ann"}),
        ('"Dare to know"', {"ann"}),
        (f"ann {SSN}", {"ann"}),
        ("ann 1990-05-17", {"ann"}),
        ("bob 1990-05-17", set()),
        ("1990-05-17", {"ann"}),
        ("123-45", set()),
        ("Dare", set()),
        ("", {"ann", "bob"}),
    ],
)
def test_search_goes_by_blind_index(member: Member, term: str, found: set[str]) -> None:
    Member.objects.create(club=member.club, alias="bob", ssn=OTHER_SSN)
    answer = browser("clerk").get(MEMBERS, {"q": term})
    assert {one.alias for one in answer.context["cl"].result_list} == found


@pytest.mark.parametrize(
    ("fields", "term", "found"),
    [
        (("number", "last_four"), "0001", {1}),
        (("number", "last_four"), "00-02", {2}),
        (("number", "last_four"), "4111 0001", {1}),
        (("number", "last_four"), "9999 0001", set()),
        (("last_four",), "4111 0001", set()),
        (("last_four__exact",), "0001", {1}),
        (("=last_four",), "0003", {3}),
        (("number_index",), "4111-0002", {2}),
        (("last_four", "limit"), "letters", set()),
        (("last_four", "limit"), "3", {3}),
        (("last_four", "id"), "x", set()),
    ],
)
def test_search_by_the_column_of_an_index(database: str, fields: tuple[str, ...], term: str, found: set[int]) -> None:
    class Searching(EncryptedAdminMixin, admin.ModelAdmin):
        search_fields = fields

    Card.objects.bulk_create([Card(number=f"4111 000{n}", limit=n) for n in range(1, 4)])
    shown, _ = Searching(Card, admin.site).get_search_results(RequestFactory().get("/"), Card.objects.all(), term)
    assert {int(card.limit) for card in shown} == found


def test_the_column_of_an_index_is_masked(member: Member) -> None:
    class Careless(EncryptedAdminMixin, admin.ModelAdmin):
        list_display = ("alias", "ssn_index")

    request = RequestFactory().get("/")
    _, column = Careless(Member, admin.site).get_list_display(request)
    assert column(member) == "<encrypted>"


def test_a_list_costs_few_round_trips(member: Member) -> None:
    Member.objects.bulk_create(
        Member(club=member.club, alias=f"m{n}", ssn=f"{n:09}", born=date(2000, 1, 1)) for n in range(60)
    )
    clerk = browser("clerk")
    with assert_round_trips(max=4):
        clerk.get(MEMBERS)


def test_declarations_that_cannot_work_are_found_by_check() -> None:
    class Careless(EncryptedAdminMixin, admin.ModelAdmin):
        list_filter = ("alias", "sex", "ssn_index")
        ordering = ("-born",)
        list_display = ("alias", "sex")
        list_editable = ("sex",)
        search_fields = ("sex", "^ssn", "ssn__gt", "^ssn_index", "ssn_index__gt", "club__name", "ssn__exact")

    found = [error for error in Careless(Member, admin.site).check() if error.id.startswith("keyside")]
    assert sorted(error.id for error in found) == ["keyside.E101"] * 4 + ["keyside.E102"] * 5
    assert MemberAdmin(Member, admin.site).check() == []


def test_an_inline_wants_the_mixin_around_it() -> None:
    class Inline(EncryptedAdminMixin, admin.TabularInline):
        model = Member

    class Plain(admin.ModelAdmin):
        inlines = (Inline,)

    class Choosing(admin.ModelAdmin):
        def get_inlines(self, request: Any, obj: Any) -> Any:
            return [Inline]

    request = RequestFactory().get("/")
    request.user = User(is_superuser=True)
    for around in (Plain, Choosing):
        site = admin.AdminSite()
        site.register(Club, around)
        found = [error.id for error in site.get_model_admin(Club).check()]
        assert found == (["keyside.E103"] if around is Plain else [])
        with pytest.raises(ImproperlyConfigured, match=f"{around.__name__}, .*EncryptedAdminMixin"):
            list(site.get_model_admin(Club).get_formsets_with_inlines(request))


def test_an_inline_without_the_mixin_is_told_of() -> None:
    class Inline(admin.TabularInline):
        model = Member

    class Masking(EncryptedAdminMixin, admin.ModelAdmin):
        inlines = (Inline,)

    site = admin.AdminSite()
    site.register(Club, Masking)
    assert [told.id for told in site.get_model_admin(Club).check()] == ["keyside.W101"]


def test_a_copy_wants_what_it_cannot_take_along(member: Member, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MemberAdmin, "save_as", True)
    clerk = browser("clerk")
    path = f"{MEMBERS}{member.pk}/change/"
    answer = clerk.post(path, posted(member, alias="bea", ssn=OTHER_SSN, _saveasnew="1"))
    errors = answer.context["adminform"].form.errors
    assert set(errors) == {"motto", "born", "sex", "vegan", "scan"}
    assert "type it again" in str(errors)
    assert Member.objects.count() == 1
    told = {"ssn": OTHER_SSN, "motto": "x", "born": "2000-01-01", "sex": "m", "vegan": "false", "scan": "{}"}
    assert clerk.post(path, posted(member, alias="bea", _saveasnew="1", **told)).status_code == 302
    copied = Member.objects.get(alias="bea")
    assert (copied.ssn, copied.sex, copied.vegan, copied.scan) == (OTHER_SSN, "m", False, {})


def test_a_copy_of_inlines_as_well(member: Member, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ClubAdmin, "save_as", True)
    old = {f"member_set-0-{name}": value for name, value in posted(member).items()}
    new = {f"member_set-1-{name}": value for name, value in posted(member, alias="cid", ssn=OTHER_SSN, sex="m").items()}
    new |= {"member_set-1-scan": "{}"}
    form = {"member_set-TOTAL_FORMS": "2", "member_set-INITIAL_FORMS": "1", "member_set-0-id": str(member.pk)}
    form |= {"name": "go", "_saveasnew": "1", **old, **new}
    answer = browser("clerk").post(f"{CLUBS}{member.club_id}/change/", form)
    first, second = answer.context["inline_admin_formsets"][0].formset.errors
    assert (set(first), set(second)) == ({"ssn", "motto", "born", "sex", "vegan", "scan"}, set())
    assert (Club.objects.count(), Member.objects.count()) == (1, 1)


class Formatting(Member):
    class Meta:
        proxy = True
        app_label = "citizens"

    def __str__(self) -> str:
        return f"{self.alias} {self.born:%d.%m.%Y} {self.ssn[-4:]} {self.get_sex_display()} {self.motto} {self.initial}"

    @cached_property
    def initial(self) -> str:
        return str(self.ssn[0])


class Computing(Member):
    class Meta:
        proxy = True
        app_label = "citizens"

    def __str__(self) -> str:
        return f"born in {self.born.year}"


def test_texts_are_made_without_any_value(member: Member) -> None:
    member.motto = None
    member.save()
    request = RequestFactory().get("/")
    request.user = User.objects.create(username="clerk")
    told = {
        Formatting: "ann <encrypted> <encrypted> <encrypted> None <encrypted>",
        Computing: f"Computing object ({member.pk})",
    }
    for model, text in told.items():
        one = model.objects.get()
        assert "1990" in str(one)
        MemberAdmin(model, admin.site).log_change(request, one, "")
        assert LogEntry.objects.latest("pk").object_repr == text
        assert (one.ssn, one.born) == (SSN, date(1990, 5, 17))
