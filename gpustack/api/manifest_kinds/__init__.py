"""The kinds of manifests: each module has a ``KIND``, found by being there."""
