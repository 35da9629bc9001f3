"""Brings a database to the schema of this program. Alembic is imported only for one of an older program."""

from __future__ import annotations

import logging
import pkgutil
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from gpustack.errors import Unavailable

from .database import Database
from .table import heads, metadata

if TYPE_CHECKING:
    from alembic.config import Config

_FOLDER = Path(__file__).parent / "migrations"
_VERSION = sa.Table(
    "alembic_version",
    sa.MetaData(),
    sa.Column("version_num", sa.String(32), nullable=False),
    sa.PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)
"""As Alembic makes it."""

log = logging.getLogger(__name__)


def known() -> list[str]:
    """The schema revisions of this program, oldest first: the numbers that the file names begin with."""
    modules = pkgutil.iter_modules([str(_FOLDER / "versions")])
    return sorted(module.name.removeprefix("v").split("_")[0] for module in modules)


def migrate(database: Database) -> None:
    """Bring the schema up to date. Of several servers that start at once, one does it and the others wait. Blocks.

    Raises ``Unavailable`` when the database is of a newer program or of another product, and ``Invalid`` when its
    server is too old.
    """
    with database.write.begin() as conn:
        database.dialect.check(conn, database.place)
        if current(conn) == known()[-1]:
            return
    with database.migrating() as conn:
        upgrade(conn, database.place)


def upgrade(conn: sa.Connection, place: str) -> None:
    """As ``migrate``, within a transaction of ``Dialect.migrating``."""
    present, revisions = current(conn), known()
    if present == revisions[-1]:
        return
    if present is None and (foreign := _foreign(conn)):
        raise Unavailable(
            f"The database {place} has tables that are not ours ({foreign}): choose an empty one with"
            " --database-url or another --data-dir"
        )
    if present is not None and present not in revisions:
        raise Unavailable(
            f"The database {place} was written by another or a newer gpustack (schema {present}, this one knows"
            f" up to {revisions[-1]}): upgrade this gpustack, or choose another --data-dir or --database-url"
        )
    if not sa.inspect(conn).get_table_names():
        _make(conn, revisions[-1])
        return
    log.info("Upgrading the database: place=%s from=%s to=%s", place, present or "none", revisions[-1])
    to(conn, "head")


def _make(conn: sa.Connection, revision: str) -> None:
    """Make all tables in an empty database, as the migrations would, but in a tenth of the time.

    Where it is killed and the database cannot take tables back, the migrations do what is left: they skip what is there
    and our table of revisions, which is made first, says that the others are ours.
    """
    _VERSION.create(conn)
    metadata.create_all(conn)
    conn.execute(sa.insert(heads).values(id=1, revision=0))
    conn.execute(sa.insert(_VERSION).values(version_num=revision))


def current(conn: sa.Connection) -> str | None:
    """The revision of the database, ``None`` when it is empty."""
    if not sa.inspect(conn).has_table("alembic_version"):
        return None
    return conn.execute(sa.select(_VERSION.c.version_num)).scalar()


def to(conn: sa.Connection, revision: str) -> None:
    """Upgrade or downgrade to a revision (``head``, ``base``) within the transaction of ``conn``."""
    from alembic import command

    config = _config(conn)
    before = current(conn)
    if revision == "head" or (revision != "base" and (before is None or before < revision)):
        command.upgrade(config, revision)
    else:
        command.downgrade(config, revision)


def _foreign(conn: sa.Connection) -> str:
    """Names of tables that are not ours. Our own may exist without a revision after a first upgrade that was killed."""
    found = set(sa.inspect(conn).get_table_names())
    begun = _VERSION.name in found
    return ", ".join(sorted(found - {_VERSION.name} - (set(metadata.tables) if begun else set()))[:5])


def _config(conn: sa.Connection) -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_FOLDER).replace("%", "%%"))
    config.attributes["connection"] = conn
    return config
