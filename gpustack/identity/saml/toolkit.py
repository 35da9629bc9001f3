"""The SAML toolkit and its two XML libraries, optional packages, imported when they are first needed."""

from __future__ import annotations

from functools import cache
from types import SimpleNamespace

from gpustack.errors import Invalid
from gpustack.text import said_by

REQUIREMENTS = ("python3-saml>=1.16,<2", "xmlsec>=1.3.17,<1.4", "lxml>=6.0,<6.2")
"""What the extra ``saml`` installs; xmlsec and lxml are built with the same libxml2 in these versions."""

_COMMAND = f"pip install --only-binary lxml,xmlsec {' '.join(map(repr, REQUIREMENTS))}"


@cache
def toolkit() -> SimpleNamespace:
    """The parts of the libraries that are used here. Takes half a second the first time: call it in a thread.

    Raises ``Invalid``, with the command to install them, when they are missing or do not match.
    """
    try:
        import lxml.etree
        import xmlsec  # after lxml, without which it complains of another version
        from onelogin.saml2.auth import OneLogin_Saml2_Auth
        from onelogin.saml2.authn_request import OneLogin_Saml2_Authn_Request
        from onelogin.saml2.errors import OneLogin_Saml2_Error
        from onelogin.saml2.response import OneLogin_Saml2_Response
        from onelogin.saml2.settings import OneLogin_Saml2_Settings
        from onelogin.saml2.utils import OneLogin_Saml2_Utils
    except ModuleNotFoundError as error:
        raise Invalid(
            f"Sign-in by SAML needs packages that are not installed ({error.name}): {_COMMAND}"
        ) from error
    # xmlsec raises an error of its own base class when lxml was built with another libxml2.
    except Exception as error:
        raise Invalid(
            f"The packages that sign-in by SAML needs do not work together ({said_by(error)}): {_COMMAND}"
        ) from error
    return SimpleNamespace(
        xmlsec=xmlsec,
        etree=lxml.etree,
        Auth=OneLogin_Saml2_Auth,
        Error=OneLogin_Saml2_Error,
        Request=OneLogin_Saml2_Authn_Request,
        Response=OneLogin_Saml2_Response,
        Settings=OneLogin_Saml2_Settings,
        Utils=OneLogin_Saml2_Utils,
    )
