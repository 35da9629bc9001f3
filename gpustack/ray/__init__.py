"""The Ray of this machine: found, started, watched, ended. One machine runs one Ray, as head or as node."""
