"""The inference path: authenticates, routes, limits and counts; the bytes themselves pass through."""
