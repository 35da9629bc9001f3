"""An encrypted assertion in the clear, read as carefully as what came: everybody can encrypt for us.

The toolkit would have the plain text parsed where it stands. That takes comments for nothing, and where it is no XML it
prints what a stranger wrote to our standard error.
"""

from __future__ import annotations

from typing import Any

from .message import parse, plain, query, refused


def open_assertion(document: Any, key: str, xmlsec: Any, etree: Any) -> Any:
    """The document with the assertion in place of the encrypted one. For documents whose shape was checked.

    Raises ``Forbidden`` or ``BadRequest`` for what is no XML inside, and an error of xmlsec for what cannot be
    decrypted.
    """
    wrappers = query(document, "./saml:EncryptedAssertion")
    found = [data for wrapper in wrappers for data in query(wrapper, "./xenc:EncryptedData[./ds:KeyInfo]")]
    if len(wrappers) != 1 or len(found) != 1:
        raise refused("it is encrypted in an unusual way")
    (wrapper,) = wrappers
    data = parse(etree.tostring(found[0], with_tail=False))
    data.attrib.pop("Type", None)  # without it xmlsec gives the bytes, and reads nothing into them
    (info,) = query(data, "./ds:KeyInfo")
    for reference in query(info, "./ds:RetrievalMethod"):
        info.remove(reference)
    # Some providers put the keys beside, and refer to them.
    info.extend(parse(etree.tostring(one, with_tail=False)) for one in query(wrapper, "./xenc:EncryptedKey"))
    manager = xmlsec.KeysManager()
    manager.add_key(xmlsec.Key.from_memory(key, xmlsec.KeyFormat.PEM, None))
    content = plain(xmlsec.EncryptionContext(manager).decrypt(data))
    # What was encrypted may use the names that stand outside.
    around = etree.tostring(etree.Element("around", nsmap=wrapper.nsmap)).removesuffix(b"/>")
    holder = parse(b"%s>%s</around>" % (around, content))
    if len(holder) != 1 or (holder.text or "").strip() or (holder[0].tail or "").strip():
        raise refused("there is no assertion inside the encryption")
    document.replace(wrapper, holder[0])
    return document
