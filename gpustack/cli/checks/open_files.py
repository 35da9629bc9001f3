"""Whether the limit of open files is high enough for many clients."""

from __future__ import annotations

from gpustack.cli.check import CheckContext, Finding, failed, good, note

_WANTED, _TOO_FEW = 65535, 4096


async def look(context: CheckContext) -> list[Finding]:
    try:
        import resource
    except ImportError:
        return []
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY or hard >= _WANTED:
        return [good("as many files may be open as are needed")]
    said = f"{hard} files may be open; every stream takes two"
    fix = f"Raise it: LimitNOFILE={_WANTED} in the systemd unit, or ulimit -Hn {_WANTED}."
    return [failed(said, fix) if hard < _TOO_FEW else note(said, fix)]
