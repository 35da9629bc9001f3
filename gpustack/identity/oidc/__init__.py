"""Signing in by OpenID Connect: the code flow with PKCE, as a relying party.

``document`` reads what the provider publishes, ``discovery`` keeps it, ``keys`` keeps its keys, ``token`` judges id
tokens, ``claims`` reads a person from them, ``provider`` is the flow. Importing it costs: only where it is configured.
"""
