"""Decisions, as pure functions of a snapshot and the time: where instances run, how many, which workers live."""
