"""What another party says of somebody is taken for what it is: text from outside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from gpustack.domain.access import UserSource
from gpustack.errors import Forbidden
from gpustack.identity.person import AttributeNames, DefaultAttributeNames, ExternalPerson, read_person

USUAL = DefaultAttributeNames(username=("email", "sub"), full_name=("name",), avatar_url=("picture",))
USUALLY = AttributeNames()
SAID: Mapping[str, Sequence[str]] = {
    "email": ("ada@example.com",),
    "sub": ("248289761001",),
    "name": ("Ada Lovelace",),
    "first": ("Ada",),
    "last": ("Lovelace",),
    "nick": (" ", "ada"),
    "picture": ("https://example.com/ada.png",),
    "groups": ("gpu", "staff", "gpu", "bad\n", ""),
}


def read(naming: AttributeNames = USUALLY, /, **said: Sequence[str]) -> ExternalPerson:
    everything = {**SAID, **said}
    return read_person(
        lambda name: everything.get(name, ()),
        naming,
        USUAL,
        source=UserSource.OIDC,
        issuer="https://idp.example",
        subject="248289761001",
    )


def test_without_options_the_usual_names_are_tried_in_turn() -> None:
    person = read()
    assert (person.username, person.full_name, person.avatar_url, person.groups) == (
        "ada@example.com",
        "Ada Lovelace",
        "https://example.com/ada.png",
        None,
    )
    assert read(email=()).username == "248289761001"


def test_options_name_where_each_is_found() -> None:
    person = read(
        AttributeNames(username="nick", full_name="first+ last", avatar_url="photo", groups="groups")
    )
    assert (person.username, person.full_name, person.avatar_url) == ("ada", "Ada Lovelace", None)
    assert person.groups == {"gpu", "staff"}


def test_a_part_that_is_missing_is_left_out_of_a_joined_name() -> None:
    assert read(AttributeNames(full_name="first+middle+last")).full_name == "Ada Lovelace"
    assert read(AttributeNames(full_name="middle")).full_name is None


def test_a_chosen_name_that_is_missing_is_not_replaced_by_another() -> None:
    with pytest.raises(Forbidden, match=r"'upn'.*--external-auth-name"):
        read(AttributeNames(username="upn"))


@pytest.mark.attack("forged-line")
@pytest.mark.parametrize(
    "name", ["a\nb", "\x1b[31mroot", "a:b", "system/worker/1", "x" * 129, "\u202eadmin", "a\x00b"], ids=ascii
)
def test_a_name_that_an_account_cannot_have_is_refused(name: str) -> None:
    with pytest.raises(Forbidden, match="cannot be one here"):
        read(email=(name,))


@pytest.mark.attack("forged-line")
@pytest.mark.parametrize("value", ["", "x" * 256, "a\nb", "\x00"], ids=ascii)
def test_an_identity_that_is_none_is_refused(value: str) -> None:
    for issuer, subject in ((value, "1"), ("https://idp.example", value)):
        with pytest.raises(Forbidden, match="identifies you"):
            read_person(
                lambda name: ("ada",),
                AttributeNames(),
                USUAL,
                source=UserSource.SAML,
                issuer=issuer,
                subject=subject,
            )


@pytest.mark.attack("cross-site")
@pytest.mark.parametrize(
    "url",
    ["javascript:alert(1)", "data:text/html,x", "//evil", "https://a b", "http://[", "https://" + "x" * 3000],
)
def test_a_picture_that_is_no_address_of_one_is_left_out(url: str) -> None:
    assert read(picture=(url,)).avatar_url is None


def test_what_cannot_be_shown_of_a_full_name_keeps_nobody_out() -> None:
    assert read(name=("Ada\x1b[2J",)).full_name is None
    assert read(name=("A" * 256,)).full_name is None
