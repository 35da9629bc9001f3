"""Filters: which workers are out before memory is compared. Each module has ``keep(request, worker, snapshot)``."""
