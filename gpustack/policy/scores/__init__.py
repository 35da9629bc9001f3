"""Which of several places is taken: a module per placement strategy, with ``score(candidate, request, snapshot)``."""
