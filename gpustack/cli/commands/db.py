"""Move the records of an installation from one database to another.

Usage:
  gpustack db migrate-from SOURCE [--to=TARGET] [--replace] [--dry-run]
  gpustack db (-h | --help)

SOURCE and TARGET are URLs as --database-url takes them: sqlite:///path, postgresql://user:password@host:port/db_name or
mysql://user:password@host:port/db_name. Stop the servers first, and start them with --database-url=TARGET afterwards.
Everything is copied and compared before it is kept; the source is not changed.

Options:
  --to=TARGET  The database to move to (default: the one of gpustack start in this environment; GPUSTACK_DATABASE_URL
               keeps its password from other users of this machine, who can see command lines).
  --replace    Lose the records that the target has.
  --dry-run    Only tell what would be changed.
  -h, --help   Show this help.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gpustack.cli.command_line import read
from gpustack.cli.dry_run import intend, is_dry
from gpustack.cli.installation import existing_database, file_of, options_of
from gpustack.cli.terminal import stderr


def run(argv: Sequence[str], env: Mapping[str, str]) -> int:
    """Say what was moved."""
    command_line = read(__doc__, "db", argv)
    source = command_line.required("SOURCE")
    target = command_line.text("--to") or options_of([], env).database_url
    _rehearse(source, target, env)
    stderr(env).say(move(source, target, replace=command_line.flag("--replace")))
    return 0


def _rehearse(source_url: str, target_url: str, env: Mapping[str, str]) -> None:
    """In a dry run, look at the source and tell what would be moved. Raises DryRunEnd, and GpustackError."""
    if not is_dry(env):
        return
    existing_database(source_url).close()
    intend(env, f"copy all records of {source_url} to {target_url}")


def move(source_url: str, target_url: str, *, replace: bool) -> str:
    """Move everything and say so in a sentence. Raises GpustackError. Blocks."""
    from gpustack.errors import Invalid
    from gpustack.store.database import open_database
    from gpustack.store.lock import FileLock
    from gpustack.store.transfer import refuse_served, transfer

    path = file_of(source_url)
    source = existing_database(source_url)
    if path is not None and path == file_of(target_url):
        raise Invalid("Source and target are the same database: name another with --to or --database-url")
    # Held until the end: what a server still wrote to the file would be missed.
    lock = FileLock(path.with_name(f"{path.name}.lock"), wait=0) if path is not None else None
    target = open_database(target_url)
    try:
        if lock is not None:
            lock.acquire()
        refuse_served(source)
        moved = transfer(source, target, replace=replace)
        return f"Moved {moved.records} records from {source.place} to {target.place}."
    finally:
        if lock is not None:
            lock.release()
        source.close()
        target.close()
