"""Sign-in by SAML: the identity provider as the sign-on flow uses it, and the checks of its answers."""
