"""Signature wrapping (Somorovsky et al., 2012) and its relatives: a forged assertion beside the one that is signed."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import attrs
from lxml import etree

from tests.saml.mint import NAMES, Answer, assertion

ADMIN = "admin@example.com"
Attack = Callable[[Answer], Any]


def forged(original: Any, *, keeps_signature: bool = False, identity: str = "_forged") -> Any:
    """A copy that says somebody else."""
    made = copy.deepcopy(original)
    made.set("ID", identity)
    made.find(".//saml:NameID", NAMES).text = ADMIN
    for value in made.iterfind(".//saml:AttributeValue", NAMES):
        value.text = ADMIN
    if not keeps_signature:
        _unsign(made)
    return made


def _unsign(element: Any) -> Any:
    for signature in element.findall("ds:Signature", NAMES):
        element.remove(signature)
    return element


def _replaced(root: Any, **how: Any) -> tuple[Any, Any]:
    """The tree with a forged assertion in place of the signed one; both."""
    original = assertion(root)
    made = forged(original, **how)
    root.replace(original, made)
    return made, original


def xsw1(answer: Answer) -> Any:
    """The signed response inside the signature of a forged one."""
    root = _signed_whole(answer)
    original = copy.deepcopy(root)
    root.set("ID", "_forgedresponse")
    _replaced(root)
    root.find("ds:Signature", NAMES).append(original)
    return root


def xsw2(answer: Answer) -> Any:
    """The signed response beside the signature, in a forged one."""
    root = _signed_whole(answer)
    original = copy.deepcopy(root)
    root.set("ID", "_forgedresponse")
    _replaced(root)
    root.insert(1, _unsign(original))
    return root


def xsw3(answer: Answer) -> Any:
    """A forged assertion before the signed one."""
    root = answer.tree()
    original = assertion(root)
    root.insert(root.index(original), forged(original))
    return root


def xsw3_after(answer: Answer) -> Any:
    """A forged assertion after the signed one."""
    root = answer.tree()
    root.append(forged(assertion(root)))
    return root


def xsw4(answer: Answer) -> Any:
    """The signed assertion inside a forged one."""
    root = answer.tree()
    made, original = _replaced(root)
    made.append(original)
    return root


def xsw5(answer: Answer) -> Any:
    """The signature stays in the forged assertion, what was signed follows without it."""
    root = answer.tree()
    _, original = _replaced(root, keeps_signature=True)
    root.append(_unsign(copy.deepcopy(original)))
    return root


def xsw6(answer: Answer) -> Any:
    """What was signed lies inside the signature of the forged assertion."""
    root = answer.tree()
    made, original = _replaced(root, keeps_signature=True)
    made.find("ds:Signature", NAMES).append(_unsign(copy.deepcopy(original)))
    return root


def xsw7(answer: Answer) -> Any:
    """The forged assertion inside an extension, where schemas allow anything."""
    root = answer.tree()
    extensions = etree.Element(f"{{{NAMES['samlp']}}}Extensions")
    root.insert(1, extensions)
    extensions.append(forged(assertion(root)))
    return root


def xsw7_swapped(answer: Answer) -> Any:
    """The signed assertion inside an extension, the forged one at its place."""
    root = answer.tree()
    _, original = _replaced(root)
    extensions = etree.Element(f"{{{NAMES['samlp']}}}Extensions")
    root.insert(1, extensions)
    extensions.append(original)
    return root


def xsw8(answer: Answer) -> Any:
    """What was signed lies in an object of the signature of the forged assertion."""
    root = answer.tree()
    made, original = _replaced(root, keeps_signature=True)
    holder = etree.SubElement(made.find("ds:Signature", NAMES), f"{{{NAMES['ds']}}}Object")
    holder.append(_unsign(copy.deepcopy(original)))
    return root


def same_id_first(answer: Answer) -> Any:
    """A forged assertion of the same ID, before: who looks IDs up finds either."""
    root = answer.tree()
    original = assertion(root)
    root.insert(root.index(original), forged(original, identity=answer.identity))
    return root


def same_id_swapped(answer: Answer) -> Any:
    """A forged assertion of the same ID that holds the signature; the original hides in an advice."""
    root = answer.tree()
    made, original = _replaced(root, keeps_signature=True, identity=answer.identity)
    advice = etree.Element(f"{{{NAMES['saml']}}}Advice")
    made.find("saml:Conditions", NAMES).addnext(advice)
    advice.append(_unsign(copy.deepcopy(original)))
    return root


def foreign_root(answer: Answer) -> Any:
    """The answer inside an element of somebody."""
    root = answer.tree()
    made = etree.Element("{urn:somebody}Envelope")
    made.append(forged(assertion(root)))
    made.append(root)
    return made


def _signed_whole(answer: Answer) -> Any:
    """An answer that is signed as a whole too."""
    return attrs.evolve(answer, signs_response=True).tree()


ATTACKS: Mapping[str, Attack] = {
    made.__name__: made
    for made in (
        *(xsw1, xsw2, xsw3, xsw3_after, xsw4, xsw5, xsw6, xsw7, xsw7_swapped, xsw8),
        *(same_id_first, same_id_swapped, foreign_root),
    )
}
