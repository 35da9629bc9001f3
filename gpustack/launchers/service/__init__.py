"""A small HTTP service, as the programs for speech and images need it: calls, forms, bounded work, a key."""
