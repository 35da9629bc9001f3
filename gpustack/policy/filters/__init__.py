"""Why a worker is out before its size is looked at: each module has ``keep(ask, worker, snapshot)``."""
