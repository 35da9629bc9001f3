"""The server role: control loops that make records true, and the functions the API calls."""
