"""What to tell about a usable configuration: settings that have no effect, are unsafe, or will be removed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gpustack.config.environment import Environment, unknown_variables
from gpustack.config.layer import written
from gpustack.config.option import Option, table
from gpustack.config.options import Options
from gpustack.config.origin import DEFAULT, RawValue
from gpustack.config.permission import readable_by_others
from gpustack.config.proxy import exempted_to_others, read_proxies
from gpustack.config.role import Role, idle_group
from gpustack.config.secret import SHORTEST, too_short
from gpustack.config.sign_on import open_callbacks
from gpustack.config.url import mask_url
from gpustack.config.value import old_keys_of_system_reserved


def warnings(
    options: Options,
    part: Role,
    given: Mapping[str, RawValue],
    variables: Environment,
    others: Mapping[str, RawValue],
    env: Mapping[str, str],
) -> tuple[str, ...]:
    """Settings that do not do what a user may expect, one sentence for each kind."""
    set_here = written(table(Options), given)
    unbuilt = [
        f"{option.name} ({given[option.name].origin})"
        for option in set_here
        if not option.takes_effect(getattr(options, option.name))
    ]
    # Only our own variables: container images set CUDA_VERSION and the like for other reasons.
    unbuilt += [
        option.env
        for option in written(table(Environment), others)
        if option.env.startswith("GPUSTACK_") and not option.takes_effect(getattr(variables, option.name))
    ]
    idle = [
        f"{option.name} ({given[option.name].origin})"
        for option in set_here
        if option.group == idle_group(part)
        and option.name not in ("disable_worker", "server_url", "disable_metrics")
    ]
    old = [str(value.origin) for value in given.values() if value.origin.kind == "legacy"]
    if given["system_reserved"].origin != DEFAULT:
        old += old_keys_of_system_reserved(given["system_reserved"].value)
    cookies = []
    if options.enable_cors and options.allow_credentials and "*" in options.allow_origins:
        cookies = [f"allow_credentials ({given['allow_credentials'].origin})"]
    proxies = read_proxies(env)
    _, lost = exempted_to_others(proxies)
    unheard = lost if options.enable_hf_xet and proxies.proxies else []
    open_ways = [f"{name} ({given[name].origin})" for name in open_callbacks(options)]
    told = (
        ("Set, but without effect in this version", unbuilt),
        (f"Set, but without effect on a {part} without a {idle_group(part)}", idle),
        (
            "Without effect until allow_origins names origins (no cookies go to whom everybody may ask)",
            cookies,
        ),
        ("Not https, so that who listens on the way can sign in as whom they hear", open_ways),
        ("Deprecated spellings that will go (use GPUSTACK_ variables, and ram and vram)", old),
        ("Entries of NO_PROXY that the Xet client does not know, so that it asks the proxy there", unheard),
        ("Secrets lie where others read", _readable_secrets(options, given, set_here)),
        (
            "With fewer characters than a new one may have, and so sooner guessed",
            _short_secrets(options, part, given),
        ),
        ("Variables that nothing reads", unknown_variables(env)),
    )
    return (
        *(f"{fault}." for fault in proxies.faults),
        *(f"{sentence}: {', '.join(names)}." for sentence, names in told if names),
    )


def _readable_secrets(
    options: Options, given: Mapping[str, RawValue], set_here: Sequence[Option]
) -> list[str]:
    """Files with secrets that other users of the machine can read."""
    in_file = any(given[one.name].origin.kind == "file" and _hides(one, options) for one in set_here)
    files = (options.config_file if in_file else None, options.ssl_keyfile)
    found = (readable_by_others(path) for path in files if path is not None)
    return [str(exposure) for exposure in found if exposure is not None]


def _short_secrets(options: Options, part: Role, given: Mapping[str, RawValue]) -> list[str]:
    """Secrets shorter than a new one may be. A worker's token was chosen at its server."""
    if part == "worker":
        return []
    names = too_short({name: getattr(options, name) for name in SHORTEST})
    return [f"{name} ({given[name].origin}, {SHORTEST[name]} for a new one)" for name in names]


def _hides(option: Option, options: Options) -> bool:
    """Whether the value is a secret, or contains one."""
    value = getattr(options, option.name)
    return option.mask is not None and option.mask(value) != value


def exported_server_url(options: Options, given: Mapping[str, RawValue]) -> tuple[str, ...]:
    """The note that GPUSTACK_SERVER_URL made this daemon a worker; empty where it did not.

    The other commands read the variable too, so that it may be set for them only.
    """
    origin = given["server_url"].origin
    if options.server_url is None or origin.kind not in ("environment", "legacy"):
        return ()
    url = mask_url(options.server_url)
    return (f"{origin} is set, so this is a worker of {url} and no server: unset it to start a server.",)
