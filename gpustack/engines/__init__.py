"""Which engines there are and how each is run: one file per engine, descriptions only, pure."""
