"""The HTTP/1.1 transport: a server core, an upstream pool, and the hand-off of a request to an ASGI app."""
