"""Structured life for services and processes on Trio: tiers, supervision, process groups."""

from .adopt import adopt, end_remains
from .group import KILL_WITHIN, ExitStatus, ProcessGroup
from .limiter import ThreadLimiter, limiters, threads, use_thread_runner
from .log_file import LogFile, keep_trimmed, rotate_previous, tail, trim
from .notify import Notifier, Watchdog, notifier, watchdog_period
from .process import spawn_group
from .quarantine import Quarantine, RowAttempt, RowFault
from .restart import NEVER, RestartPolicy
from .service import FunctionService, Service, ServiceReturned, function_service, supervise
from .signals import Signals
from .state import (
    GroupState,
    UnreadableState,
    forget_state,
    read_state,
    read_states,
    write_state,
)
from .ticker import ticks
from .tier import Tier, draw_tree, open_tier, tree
from .wake import AsyncValue, Wake, first_of

__all__ = [
    "KILL_WITHIN",
    "NEVER",
    "AsyncValue",
    "ExitStatus",
    "FunctionService",
    "GroupState",
    "LogFile",
    "Notifier",
    "ProcessGroup",
    "Quarantine",
    "RestartPolicy",
    "RowAttempt",
    "RowFault",
    "Service",
    "ServiceReturned",
    "Signals",
    "ThreadLimiter",
    "Tier",
    "UnreadableState",
    "Wake",
    "Watchdog",
    "adopt",
    "draw_tree",
    "end_remains",
    "first_of",
    "forget_state",
    "function_service",
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
    "use_thread_runner",
    "watchdog_period",
    "write_state",
]
