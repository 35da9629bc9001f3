"""GPUStack: one light daemon that turns any set of machines into an OpenAI-compatible service."""

__version__ = "0.1.0"
__commit__ = "HEAD"
