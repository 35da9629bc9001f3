"""One file per resource; each brings a ``RESOURCE``, or ``ROUTES`` of its own."""
