"""Sign-in by OpenID Connect: the authorization code flow with PKCE, as a relying party.

``provider_document`` reads the discovery document, ``discovery`` fetches and keeps it, ``provider_keys`` keeps the
public keys, ``id_token`` verifies tokens, ``provider`` is the flow. Importing it is slow: only where it is configured.
"""
