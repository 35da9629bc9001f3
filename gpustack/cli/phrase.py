"""Values of the API as people read them: sizes, ages, states, reasons."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from gpustack.domain.unit import STEPS, human_bytes

_STYLES = {
    "running": "green",
    "ready": "green",
    "error": "red",
    "unreachable": "red",
    "not_ready": "red",
    "pending": "yellow",
    "cordoned": "yellow",
    "draining": "yellow",
}


def size(value: Any) -> str:
    """Bytes; ``-`` when unknown."""
    return human_bytes(value) if isinstance(value, int) else "-"


def part(used: Any, total: Any) -> str:
    """How much of a memory: ``3.0/23.5 GiB``, in the unit of the whole; ``-`` where that is unknown."""
    if not isinstance(total, int):
        return "-"
    whole = human_bytes(total)
    number, _, unit = whole.partition(" ")
    if not isinstance(used, int):
        return f"-/{whole}"
    step = next((step for step, name in STEPS if name == unit), 1)
    return f"{used / step:.{1 if '.' in number else 0}f}/{whole}"


def chip(name: Any) -> str:
    """The name of a GPU without that of its maker, which every name of that maker has: ``H200``."""
    text = one_line(name)
    for maker in _MAKERS:
        text = text.removeprefix(maker)
    return text or "?"


_MAKERS = ("NVIDIA ", "GeForce ", "Tesla ", "AMD ", "Instinct ", "Intel(R) ", "Huawei ")


def rate(value: Any) -> str:
    """Of something a second; ``-`` when unknown."""
    return f"{value:.{1 if 0 < value < 10 else 0}f}" if isinstance(value, int | float) else "-"


def age(instant: Any, now: datetime) -> str:
    """How long ago an instant of the API was: ``3m``; ``-`` when unknown."""
    then = read_instant(instant)
    return "-" if then is None else span((now - then).total_seconds())


def read_instant(text: Any) -> datetime | None:
    """An instant of the API as an aware datetime; ``None`` for anything else."""
    if not isinstance(text, str):
        return None
    try:
        read = datetime.fromisoformat(text)
    except ValueError:
        return None
    return read if read.tzinfo else read.replace(tzinfo=UTC)


def local_time(instant: Any, *, unknown: str = "-") -> str:
    """An instant of the API in the time zone of this machine: ``2026-01-31 08:00+01:00``."""
    then = read_instant(instant)
    return unknown if then is None else then.astimezone().isoformat(sep=" ", timespec="minutes")


def clock_time(instant: Any) -> str:
    """An instant of the API as clocks here have shown it: ``2026-01-31 08:00:00``; ``-`` when unknown."""
    then = read_instant(instant)
    return "-" if then is None else then.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def span(seconds: float) -> str:
    """A time in its largest unit: ``0s``, ``59s``, ``3m``, ``5h``, ``12d``."""
    left = max(0, int(seconds))
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if left >= length:
            return f"{left // length}{unit}"
    return f"{left}s"


def clock(seconds: float) -> str:
    """A time to wait: ``0:07``, ``12:30``, ``1:02:03``."""
    minutes, rest = divmod(max(0, int(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def state_style(state: str) -> str | None:
    """The colour of a state; transitional states have none."""
    return _STYLES.get(state)


def with_progress(state: str, document: dict[str, Any]) -> str:
    """``downloading 42%``; other states as they are."""
    done = document.get("download_progress")
    return f"{state} {done:.0f}%" if state == "downloading" and done is not None else state


def one_line(text: Any) -> str:
    """Text with its line breaks and runs of spaces made single spaces."""
    return " ".join(str(text or "").split())


def reason(instance: dict[str, Any], now: datetime) -> str:
    """Why an instance is in its state, and when it is started again; may be empty."""
    message = one_line(instance.get("state_message") or instance.get("waits_for"))
    again = None if instance.get("deleted_at") else read_instant(instance.get("next_retry_at"))
    if instance.get("state") != "error" or again is None or again <= now:
        return f"{message}{until(instance.get('waits_until'), now)}" if message else ""
    left = f"starts again in {span((again - now).total_seconds())}"
    return f"{message.rstrip('.')}; {left}" if message else left


def until(instant: Any, now: datetime) -> str:
    """``, about 5m left``; empty where it is unknown or over."""
    then = read_instant(instant)
    return "" if then is None or then <= now else f", about {span((then - now).total_seconds())} left"


def source(document: dict[str, Any]) -> str:
    """Where a model, instance or file comes from."""
    repo = next(
        (document[name] for name in _REPOS if document.get(name)),
        document.get("source") or "-",
    )
    file = document.get("huggingface_filename") or document.get("model_scope_file_path")
    if repo == document.get("ollama_library_model_name"):
        return f"ollama:{repo}"
    if repo == document.get("model_scope_model_id"):
        repo = f"ms:{repo}"
    return f"{repo}:{file}" if file else str(repo)


_REPOS = ("huggingface_repo_id", "model_scope_model_id", "ollama_library_model_name", "local_path")


def taints_in_line(worker: Mapping[str, Any]) -> str:
    """The taints of a worker as they are set, ``gpu=a100:NoSchedule``; empty when it has none."""
    return ", ".join(
        f"{one['key']}={one['value']}:{one['effect']}"
        if one.get("value")
        else f"{one['key']}:{one['effect']}"
        for one in worker.get("taints") or []
    )
