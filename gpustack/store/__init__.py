"""The records of the cluster: kept in a database, read from memory, changed by one writer."""

from .store import Store, StoreSettings, open_store
from .transaction import Tx

__all__ = ["Store", "StoreSettings", "Tx", "open_store"]
