"""The installation on this machine, for commands that work on its files: its options and its database."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gpustack.cli.failure import UsageError

if TYPE_CHECKING:
    from gpustack.config.loader import Configuration
    from gpustack.config.options import Options
    from gpustack.store.database import Database


def load_options(argv: Sequence[str], env: Mapping[str, str], *, command: str = "start") -> Configuration:
    """The configuration of ``gpustack <command> *argv``; raises UsageError with everything that is wrong with it."""
    from gpustack.config.loader import load
    from gpustack.config.origin import ConfigError

    try:
        return load(argv, env, platform=sys.platform, cwd=Path.cwd(), command=command)
    except ConfigError as error:
        raise UsageError(str(error)) from error


def options_of(start_argv: Sequence[str], env: Mapping[str, str]) -> Options:
    """The options of ``gpustack start *start_argv``; raises UsageError with everything that is wrong with them."""
    return load_options(start_argv, env).options


def split_start_options(argv: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """The words of the command itself, and the options of ``gpustack start`` that follow ``--``."""
    cut = argv.index("--") if "--" in argv else len(argv)
    return argv[:cut], argv[cut + 1 :]


def existing_database(url: str) -> Database:
    """The database at ``url``; a file must be there already. Raises Invalid and Unavailable."""
    from gpustack.errors import Invalid
    from gpustack.store.database import open_database

    path = file_of(url)
    if path is not None and not path.is_file():
        raise Invalid(f"There is no database {path}: name another with --data-dir or --database-url")
    return open_database(url)


def file_of(url: str) -> Path | None:
    """The file of an SQLite URL; ``None`` for a database with a server of its own. Raises Invalid."""
    import sqlalchemy as sa

    from gpustack.config.url import plain_database_url
    from gpustack.errors import Invalid

    try:
        parsed = sa.make_url(plain_database_url(url, Path.home()))
    except (sa.exc.ArgumentError, ValueError):
        raise Invalid(
            "A database is named by a URL such as postgresql://user:password@host:port/db_name"
        ) from None
    if parsed.get_backend_name() != "sqlite" or not parsed.database:
        return None
    return Path(parsed.database).absolute()
