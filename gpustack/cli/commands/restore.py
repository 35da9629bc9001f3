"""Bring back what gpustack backup wrote, into the data directory and the database.

Usage:
  gpustack restore [options] FILE
  gpustack restore [options] FILE -- START_OPTION...

The server must not run; the database may be of another kind than the one that the backup was made of. The file is
checked before anything is changed. Options of gpustack start that name the data directory or the database, if they
are not in the environment, follow after --.

Options:
  --replace   Lose the records and secrets that are there. A file of a newer gpustack is kept, as database.db.newer.
  --dry-run   Only tell what would be changed.
  -h, --help  Show this help.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from gpustack.cli.command_line import read
from gpustack.cli.dry_run import intend, is_dry
from gpustack.cli.installation import options_of, split_start_options
from gpustack.cli.terminal import stderr

if TYPE_CHECKING:
    from gpustack.config.options import Options
    from gpustack.store.database import Database


def run(argv: Sequence[str], env: Mapping[str, str]) -> int:
    """Say what was restored."""
    own, start_argv = split_start_options(argv)
    command_line = read(__doc__, "restore", own)
    options = options_of(start_argv, env)
    source = Path(command_line.required("FILE")).absolute()
    replace = command_line.flag("--replace")
    if is_dry(env):
        _rehearse(options, source, env, replace=replace)
    stderr(env).say(restore(options, source, replace=replace))
    return 0


def restore(options: Options, source: Path, *, replace: bool) -> str:
    """Restore and say so in a sentence. Raises GpustackError, and then has changed nothing. Blocks."""
    from gpustack.cli import backup_file as form
    from gpustack.cli.newer_database import put_aside
    from gpustack.config.datadir import lock_data_dir, make_dir, refuse_open_dir
    from gpustack.store.database import open_database
    from gpustack.store.load import records
    from gpustack.store.migration import migrate
    from gpustack.store.transfer import transfer

    make_dir(options.data_dir)
    refuse_open_dir(options.data_dir)
    with (
        lock_data_dir(options.data_dir),
        tempfile.TemporaryDirectory(prefix=".gpustack-restore-", dir=options.data_dir) as made,
    ):
        folder = Path(made)
        manifest = form.unpack(source, folder)
        form.check_database(folder / form.DATABASE)
        if not replace:
            _refuse_other_secrets(options.data_dir, folder, list(manifest.files))
        copy = open_database(f"sqlite:///{folder / form.DATABASE}")
        try:
            migrate(copy)
            _let_workers_in(copy)
            with copy.snapshot() as conn:
                for _ in records(conn, str(source)):
                    pass
            with put_aside(options.database_url) if replace else nullcontext() as aside:
                target = open_database(options.database_url)
                try:
                    moved = transfer(copy, target, replace=replace, resume=False)
                    place = target.place
                finally:
                    target.close()
        finally:
            copy.close()
        _put(options.data_dir, folder, list(manifest.files))
    return (
        f"Restored {moved.records} records to {place}, from a backup of {manifest.made_at:%Y-%m-%d %H:%M} UTC by"
        f" gpustack {manifest.version}."
        + (f" The records of the newer program are kept in {aside}." if aside is not None else "")
    )


def _rehearse(options: Options, source: Path, env: Mapping[str, str], *, replace: bool) -> None:
    """Check the backup as ``restore`` does, in a folder of its own, and tell what that would do. Raises DryRunEnd, and
    GpustackError."""
    from gpustack.cli import backup_file as form

    with tempfile.TemporaryDirectory(prefix=".gpustack-restore-") as made:
        folder = Path(made)
        manifest = form.unpack(source, folder)
        form.check_database(folder / form.DATABASE)
        names = [name for name in manifest.files if name != form.DATABASE]
        if not replace:
            _refuse_other_secrets(options.data_dir, folder, names)
    lost = ", and lose what is there" if replace else ""
    intend(
        env,
        f"restore {sum(manifest.rows.values())} rows of a backup of {manifest.made_at:%Y-%m-%d %H:%M} UTC to "
        f"{options.database_url}{lost}",
        f"write {', '.join(names)} in {options.data_dir}",
    )


def _refuse_other_secrets(data_dir: Path, folder: Path, names: Sequence[str]) -> None:
    from gpustack.cli.backup_file import BackupError

    if kept := _kept(data_dir, folder, names):
        raise BackupError(
            f"{data_dir} has secrets that differ from those of the backup ({', '.join(kept)}): choose another "
            "--data-dir, or give --replace to lose them"
        )


def _let_workers_in(copy: Database) -> None:
    """Let each worker join by the cluster token once, unless it shows the credential that the backup has: workers may
    have newer credentials by now."""
    import sqlalchemy as sa

    from gpustack.domain.worker import Worker
    from gpustack.store.table import tables

    with copy.write.begin() as conn:
        conn.execute(sa.update(tables[Worker]).values(former_credential_hash=""))


def _kept(data_dir: Path, folder: Path, names: Sequence[str]) -> list[str]:
    """The secrets that the data directory has already and that differ from the backup's."""
    from gpustack.cli.backup_file import DATABASE

    def differs(name: str) -> bool:
        there = data_dir / name
        return there.exists() and there.read_bytes().strip() != (folder / name).read_bytes().strip()

    return [name for name in names if name != DATABASE and differs(name)]


def _put(data_dir: Path, folder: Path, names: Sequence[str]) -> None:
    from gpustack.cli.backup_file import DATABASE
    from gpustack.config.secret import write_secret

    for name in names:
        if name != DATABASE:
            write_secret(data_dir / name, (folder / name).read_bytes().decode("ascii", "replace").strip())
