"""Defaults that depend on the machine, the user and other options."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import attrs

from gpustack.config.option import table
from gpustack.config.options import Options
from gpustack.config.url import plain_database_url

_BELOW_DATA = {"cache_dir": "cache", "bin_dir": "bin", "log_dir": "log"}


@attrs.frozen(kw_only=True)
class HostContext:
    """What defaults depend on: ``sys.platform``, the environment, the working directory, the effective user id.

    ``euid`` is None where the system has no user ids (Windows).
    """

    platform: str
    env: Mapping[str, str] = attrs.field(repr=False)
    cwd: Path
    euid: int | None

    @property
    def home(self) -> Path:
        return Path(self.env.get("HOME") or Path.home())

    @property
    def personal(self) -> bool:
        """Whether a user who is not root runs the daemon by hand, without access to system directories and port 80.

        A service manager that sets STATE_DIRECTORY has provided both.
        """
        return self.euid not in (0, None) and not self.env.get("STATE_DIRECTORY")


def default_data_dir(host: HostContext) -> Path:
    """The data directory when none is set."""
    if host.platform.startswith("win"):
        return Path(host.env.get("APPDATA") or "C:\\ProgramData") / "gpustack"
    if prepared := host.env.get("STATE_DIRECTORY"):
        return Path(prepared.split(":")[0])
    if host.personal:
        home = host.env.get("XDG_DATA_HOME", "")
        # The specification has relative values ignored.
        return (Path(home) if home.startswith("/") else host.home / ".local" / "share") / "gpustack"
    return Path("/var/lib/gpustack")


def default_port(host: HostContext, *, tls: bool) -> int:
    """The server's port when none is set."""
    if host.personal:
        return 8443 if tls else 8080
    return 443 if tls else 80


def settle(options: Options, written: Collection[str], host: HostContext) -> tuple[Options, tuple[str, ...]]:
    """Fill in the defaults of options that are not in ``written``, make paths absolute, and trim URLs.

    Also returns a sentence for each choice that a user may not expect.
    """
    notes: list[str] = []
    filled: dict[str, object] = {}
    data = absolute(options.data_dir, host) if "data_dir" in written else default_data_dir(host)
    filled["data_dir"] = data
    for name, folder in _BELOW_DATA.items():
        if name not in written:
            filled[name] = data / folder
    if "database_url" not in written:
        filled["database_url"] = f"sqlite:///{data / 'database.db'}"
    else:
        filled["database_url"] = plain_database_url(options.database_url, host.home)
    if "port" not in written:
        filled["port"] = default_port(host, tls=options.ssl_certfile is not None)
    for name in ("server_url", "advertise_url", "ollama_library_base_url"):
        if (url := getattr(options, name)) is not None:
            filled[name] = url.rstrip("/")
    if options.server_url is not None and options.disable_metrics and "disable_worker_metrics" not in written:
        filled["disable_worker_metrics"] = True  # as it is written in files made for a worker
    if host.personal and "data_dir" not in written:
        notes.append(f"You are not root and no data_dir is set, so data goes to {data}.")
    if host.personal and "port" not in written and options.server_url is None:
        notes.append(f"You are not root and no port is set, so the server listens on {filled['port']}.")
    settled = attrs.evolve(options, **filled)  # type: ignore[arg-type]  # each is the type of its field
    return attrs.evolve(settled, **_absolute_paths(settled, host)), tuple(notes)  # type: ignore[arg-type]  # paths all


def _absolute_paths(options: Options, host: HostContext) -> dict[str, Path]:
    values = {option.name: getattr(options, option.name) for option in table(Options)}
    return {name: absolute(value, host) for name, value in values.items() if isinstance(value, Path)}


def absolute(path: Path, host: HostContext) -> Path:
    """``path`` made absolute: ``~`` is the home directory, a relative path starts at the working directory."""
    if path.parts[:1] == ("~",):
        return host.home.joinpath(*path.parts[1:])
    return path if path.is_absolute() else host.cwd / path
