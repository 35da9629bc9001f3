"""What the doctor looks at, and what it finds."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING

import attrs

from gpustack.cli.address import ServerAddress

if TYPE_CHECKING:
    from gpustack.config.loader import Configuration
    from gpustack.config.options import Options
    from gpustack.config.origin import ConfigError


class CheckStatus(StrEnum):
    """``NOTE`` is nothing wrong, but worth knowing, or something that could not be found out."""

    GOOD = "ok"
    NOTE = "note"
    FAILED = "failed"


@attrs.frozen
class Finding:
    """One answer of a check. ``fix`` is what to do about one that failed."""

    verdict: CheckStatus
    sentence: str
    fix: str = ""


def good(sentence: str) -> Finding:
    return Finding(CheckStatus.GOOD, sentence)


def note(sentence: str, fix: str = "") -> Finding:
    return Finding(CheckStatus.NOTE, sentence, fix)


def failed(sentence: str, fix: str) -> Finding:
    return Finding(CheckStatus.FAILED, sentence, fix)


@attrs.frozen(kw_only=True)
class CheckContext:
    """This machine as ``gpustack start`` would find it. ``loaded`` is None where the configuration is wrong.

    ``address`` is the server that commands would talk to, ``unreached`` why there is none.
    """

    env: Mapping[str, str] = attrs.field(repr=False)
    loaded: Configuration | None
    config_error: ConfigError | None = None
    address: ServerAddress | None = None
    unreached: str = ""

    @property
    def options(self) -> Options | None:
        return None if self.loaded is None else self.loaded.options
