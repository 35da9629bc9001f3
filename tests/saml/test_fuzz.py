"""Whatever bytes come as an answer: only a signed part that nobody touched is believed, and faults have names."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from functools import cache

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lxml import etree

from gpustack.errors import BadRequest, Forbidden, PayloadTooLarge
from gpustack.identity.saml.assertion import Assertion
from gpustack.identity.saml.response import verify
from tests.saml.mint import REQUEST, Answer, assertion, encrypt, saml
from tests.saml.wrapping import ADMIN

pytestmark = pytest.mark.attack("saml")

GOOD = Answer(signs_response=False)
OFTEN = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
WORDS = (
    *(
        b"<",
        b">",
        b"</saml:Assertion>",
        b"<saml:Assertion>",
        b"<!-- -->",
        b"&amp;",
        b"&#0;",
        b"&e;",
        b'"',
        b"\0",
        b"\xff",
    ),
    *(
        b"<ds:Signature>",
        b"</ds:Signature>",
        b' ID="_assertion1"',
        b"<![CDATA[",
        b"]]>",
        b"<?x?>",
        b"xmlns:saml=''",
    ),
    *(
        ADMIN.encode(),
        b"http://www.w3.org/2000/09/xmldsig#",
        b"99999999999999999999",
        b"\xe2\x80\xae",
        b"urn:",
    ),
)


def asked(raw: bytes | str) -> Assertion | None:
    """What is believed of it; any error without a name fails the test."""
    one = saml()
    text = base64.b64encode(raw).decode() if isinstance(raw, bytes) else raw
    try:
        return verify(one.settings, one._read, text, request_id=REQUEST, now=datetime.now(UTC))
    except (BadRequest, Forbidden, PayloadTooLarge):
        return None


@cache
def believed() -> Assertion:
    good = asked(etree.tostring(GOOD.tree()))
    assert good is not None
    return good


def is_what_was_signed(found: Assertion | None) -> bool:
    """Nothing, or to the letter what the provider signed."""
    good = believed()
    return found is None or (found.name_id, found.attributes, found.id_hash) == (
        good.name_id,
        good.attributes,
        good.id_hash,
    )


@OFTEN
@given(st.data())
def test_a_good_answer_with_bytes_changed_says_the_same_or_nothing(data: st.DataObject) -> None:
    content = bytearray(etree.tostring(GOOD.tree()))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        length = data.draw(st.sampled_from((0, 0, 1, 8, 64)))
        content[at : at + length] = data.draw(st.sampled_from(WORDS) | st.binary(max_size=3))
    assert is_what_was_signed(asked(bytes(content)))


@OFTEN
@given(st.data())
def test_a_good_answer_with_elements_moved_says_the_same_or_nothing(data: st.DataObject) -> None:
    """Copied, moved, dropped, renamed: what signature wrapping is made of."""
    root = GOOD.tree()
    for _ in range(data.draw(st.integers(1, 4))):
        elements = list(root.iter())
        one, other = data.draw(st.sampled_from(elements)), data.draw(st.sampled_from(elements))
        act = data.draw(st.sampled_from(("copy", "move", "drop", "text", "id", "attribute")))
        if act in ("copy", "move") and one is not root and other not in one.iter():
            made = etree.fromstring(etree.tostring(one, with_tail=False)) if act == "copy" else one
            other.insert(data.draw(st.integers(0, len(other))), made)
        elif act == "drop" and one is not root:
            one.getparent().remove(one)
        elif act == "text":
            one.text = ADMIN
        elif act == "id":
            one.set("ID", data.draw(st.sampled_from(("_assertion1", "_response1", "_x"))))
        elif act == "attribute" and one.attrib:
            one.set(
                data.draw(st.sampled_from(sorted(one.attrib))), data.draw(st.sampled_from(("", "x", ADMIN)))
            )
    assert is_what_was_signed(asked(etree.tostring(root)))


@OFTEN
@given(st.binary(max_size=300) | st.lists(st.sampled_from(WORDS), max_size=30).map(b"".join))
def test_any_bytes_are_no_answer(raw: bytes) -> None:
    assert asked(raw) is None


@OFTEN
@given(st.text(max_size=300))
def test_any_text_is_no_answer(text: str) -> None:
    assert asked(text) is None


@settings(OFTEN, max_examples=50)
@given(st.data())
def test_anything_inside_the_encryption_says_what_was_signed_or_nothing(data: st.DataObject) -> None:
    """Decrypted before it is proved: everybody can write there."""
    root = GOOD.tree()
    content = bytearray(etree.tostring(assertion(root), with_tail=False))
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(0, len(content)))
        length = data.draw(st.sampled_from((0, 0, 1, 8, 64, 10_000)))
        content[at : at + length] = data.draw(st.sampled_from(WORDS) | st.binary(max_size=3))
    encrypt(root, content=bytes(content))
    assert is_what_was_signed(asked(etree.tostring(root)))
