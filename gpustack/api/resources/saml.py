"""Signing in by SAML: the way there, the answer that a browser brings, and the way in.

The provider sends the browser back by a form of its own site, and with such a POST browsers send no cookie of ours.
So the answer alone is judged there, by the request it belongs to; who brought it shows on the next step, which is a
plain link with the cookie. What was proved waits on the server meanwhile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast
from urllib.parse import parse_qs

from gpustack.domain.access import UsedAssertion, UserSource
from gpustack.errors import BadRequest, Forbidden
from gpustack.identity.person import DefaultAttributeNames, ExternalPerson, pack, read_person, unpack
from gpustack.store.transaction import Tx

from ..page import redirect
from ..route import ApiCall, ApiResponse, ApiRoute, tagged
from ..sign_on import finish, hold, refuse_unless, shown, start, take, under_way

if TYPE_CHECKING:  # it costs where nobody signs in so
    from gpustack.identity.saml import Assertion, SamlProvider

USUAL = DefaultAttributeNames(
    username=("email", "emailaddress", "name_id", "nameidentifier"), full_name=("displayName", "name")
)
"""The attributes that are looked at where nothing is set."""

_FORM = "application/x-www-form-urlencoded"


async def _login(call: ApiCall) -> ApiResponse:
    saml = _saml(call)
    request_id, request = await saml.request()
    state, headers = await start(call, UserSource.SAML, secret=request_id)
    return redirect(await saml.redirect(request, state), headers)


async def _callback(call: ApiCall) -> ApiResponse:
    saml = _saml(call)
    form = await _form(call)
    sign_in = await under_way(call, UserSource.SAML, form.get("RelayState"))
    call.context.answer_pace.step(call.ask.peer)
    assertion = await saml.verify(
        form.get("SAMLResponse", ""), request_id=sign_in.secret, now=call.context.clock()
    )
    person = _person(call, assertion)
    state = await hold(call, sign_in, pack(person), also=lambda tx: use(tx, assertion))
    return redirect(f"/auth/saml/finish?state={state}")


async def _finish(call: ApiCall) -> ApiResponse:
    _saml(call)
    sign_in = await take(call, UserSource.SAML, call.query.one("state"))
    person = unpack(sign_in.secret)
    if person is None:
        raise BadRequest("This sign-in has no answer of the identity provider yet")
    return await finish(call, sign_in, person)


async def _metadata(call: ApiCall) -> ApiResponse:
    text = await _saml(call).metadata()
    return ApiResponse(body=text.encode(), content_type="application/samlmetadata+xml")


def use(tx: Tx, assertion: Assertion) -> None:
    """Note that an assertion has been used, and forget those that have ended. Raises ``Forbidden`` the second time.

    On several servers it is the database that takes no second one.
    """
    for known in list(tx.all(UsedAssertion).values()):
        if known.expires_at <= tx.now:
            tx.delete(UsedAssertion, known.id)
    if tx.find(UsedAssertion, assertion_hash=assertion.id_hash) is not None:
        raise Forbidden("The identity provider's answer is refused: it was used before")
    tx.insert(UsedAssertion(assertion_hash=assertion.id_hash, expires_at=assertion.used_until))


def _person(call: ApiCall, assertion: Assertion) -> ExternalPerson:
    naming = call.context.sign_on.naming
    return read_person(
        assertion.look,
        naming,
        USUAL,
        source=UserSource.SAML,
        issuer=assertion.issuer,
        subject=assertion.subject(naming.username),
    )


def _saml(call: ApiCall) -> SamlProvider:
    refuse_unless(call, UserSource.SAML)
    return cast("SamlProvider", call.context.sign_on.party)


async def _form(call: ApiCall) -> dict[str, str]:
    kind = call.ask.text(b"content-type").partition(";")[0].strip().lower()
    if kind != _FORM:
        raise BadRequest(f"The identity provider's answer comes as a form ({_FORM})")
    try:
        read: dict[str, Any] = parse_qs((await call.ask.body()).decode(), max_num_fields=20)
    except ValueError as error:
        raise BadRequest("The form cannot be read") from error
    if any(len(values) > 1 for values in read.values()):
        raise BadRequest("The form says something twice")
    return {name: values[0] for name, values in read.items()}


ROUTES = tagged(
    "auth",
    (
        ApiRoute(
            method="GET",
            path="/auth/saml/login",
            summary="Send a browser to sign in by SAML; ?next= is the page here to come back to",
            handler=shown(_login, UserSource.SAML),
            allow=None,
            hidden=True,
        ),
        ApiRoute(
            method="POST",
            path="/auth/saml/callback",
            summary="Where the SAML identity provider has a browser bring its answer (HTTP-POST binding)",
            handler=shown(_callback, UserSource.SAML),
            allow=None,
            action="",  # the login on the next step is told of
            hidden=True,
        ),
        ApiRoute(
            method="GET",
            path="/auth/saml/finish",
            summary="Where that browser goes next, to be logged in",
            handler=shown(_finish, UserSource.SAML),
            allow=None,
            hidden=True,
        ),
        ApiRoute(
            method="GET",
            path="/auth/saml/metadata",
            summary="What a SAML identity provider needs to know of this server",
            handler=_metadata,
            allow=None,
            answer_type="application/samlmetadata+xml",
            hidden=True,
        ),
    ),
)
