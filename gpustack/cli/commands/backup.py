"""Write every record and secret of this server into one file, while it runs or not.

Usage:
  gpustack backup [options] [FILE]
  gpustack backup [options] [FILE] -- START_OPTION...

FILE is gpustack-<date>.backup in the working directory if not given; one that is there already is not overwritten.
It holds what gpustack restore needs: every record as of one moment, whatever database it is in, and the secrets in the
data directory. Keep it as safe as a password. Model files are not in it, nor are secrets given as options. Options of
gpustack start that name the data directory or the database, if they are not in the environment, follow after --.

Options:
  --dry-run   Only tell what would be changed.
  -h, --help  Show this help.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from gpustack.cli.command_line import read
from gpustack.cli.dry_run import intend
from gpustack.cli.installation import existing_database, options_of, split_start_options
from gpustack.cli.terminal import stderr

if TYPE_CHECKING:
    from gpustack.config.options import Options


def run(argv: Sequence[str], env: Mapping[str, str]) -> int:
    """Print the name of the file."""
    own, start_argv = split_start_options(argv)
    command_line = read(__doc__, "backup", own)
    now = datetime.now(UTC)
    target = Path(command_line.text("FILE") or f"gpustack-{now:%Y%m%dT%H%M%SZ}.backup").absolute()
    options = options_of(start_argv, env)
    refuse_target(target)
    intend(
        env,
        f"write all records of {options.database_url} and the secrets of {options.data_dir} to {target}",
    )
    records = back_up(options, target, now)
    print(target)
    stderr(env).say(f"{records} records are in it; keep it as safe as a password.")
    return 0


def back_up(options: Options, target: Path, now: datetime) -> int:
    """Write the backup; returns how many records are in it. Raises GpustackError. Blocks."""
    from gpustack import __version__
    from gpustack.cli import backup_file as form
    from gpustack.store.database import open_database
    from gpustack.store.migration import known
    from gpustack.store.transfer import transfer

    refuse_target(target)
    source = existing_database(options.database_url)
    try:
        with tempfile.TemporaryDirectory(prefix=".gpustack-backup-", dir=_roomy(target)) as made:
            folder = Path(made)
            copy = open_database(f"sqlite:///{folder / form.DATABASE}")
            try:
                moved = transfer(source, copy)
            finally:
                copy.close()
            form.settle_database(folder / form.DATABASE)
            secrets = [name for name in form.SECRETS if _taken(options.data_dir / name, folder / name)]
            files = {name: form.digest(folder / name) for name in (form.DATABASE, *secrets)}
            manifest = form.Manifest(
                version=__version__,
                schema=known()[-1],
                made_at=now,
                source=source.place,
                revision=moved.revision,
                rows=moved.rows,
                files=files,
            )
            form.pack(folder, manifest, target)
    finally:
        source.close()
    return moved.records


def refuse_target(target: Path) -> None:
    """Raise BackupError for a file that is there, or that has no directory to be in."""
    from gpustack.cli.backup_file import BackupError

    if target.exists():
        raise BackupError(f"{target} is there already: name another file")
    if not target.parent.is_dir():
        raise BackupError(f"There is no directory {target.parent} for the backup: make it")


def _roomy(target: Path) -> Path:
    """The folder of the target, which needs room for the backup anyway. Raises BackupError if it cannot be written."""
    import os

    from gpustack.cli.backup_file import BackupError

    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise BackupError(f"The directory {target.parent} cannot be written: name a file elsewhere")
    return target.parent


def _taken(secret: Path, copy: Path) -> bool:
    import shutil

    from gpustack.cli.backup_file import BackupError

    try:
        shutil.copyfile(secret, copy)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise BackupError(
            f"{secret} cannot be read ({error.strerror}): run this as the user of the server"
        ) from error
    return True
