"""Structured life for services and processes on Trio: tiers, supervision, process groups."""

from .adopt import adopt, end_remains
from .bus import Bus, Lagged, Listener
from .group import KILL_WITHIN, Exit, Group
from .limiter import Threads, hop_by, in_line, limiters, threads
from .notify import Notifier, Watchdog, notifier, watchdog, watchdog_period
from .output import Output, keep_trimmed, rotate_previous, tail, trim
from .process import spawn_group
from .quarantine import Quarantine, RowFault, Trial
from .restart import NEVER, Restart
from .service import FunctionService, Service, ServiceReturned, function_service
from .signals import Signals
from .state import (
    GroupState,
    Unreadable,
    command_hash,
    forget_state,
    read_state,
    read_states,
    write_state,
)
from .supervise import supervise
from .ticker import ticks
from .tier import Tier, open_tier
from .tree import draw_tree, tree
from .wake import Latest, Wake

__all__ = [
    "KILL_WITHIN",
    "NEVER",
    "Bus",
    "Exit",
    "FunctionService",
    "Group",
    "GroupState",
    "Lagged",
    "Latest",
    "Listener",
    "Notifier",
    "Output",
    "Quarantine",
    "Restart",
    "RowFault",
    "Service",
    "ServiceReturned",
    "Signals",
    "Threads",
    "Tier",
    "Trial",
    "Unreadable",
    "Wake",
    "Watchdog",
    "adopt",
    "command_hash",
    "draw_tree",
    "end_remains",
    "forget_state",
    "function_service",
    "hop_by",
    "in_line",
    "keep_trimmed",
    "limiters",
    "notifier",
    "open_tier",
    "read_state",
    "read_states",
    "rotate_previous",
    "spawn_group",
    "supervise",
    "tail",
    "threads",
    "ticks",
    "tree",
    "trim",
    "watchdog",
    "watchdog_period",
    "write_state",
]
