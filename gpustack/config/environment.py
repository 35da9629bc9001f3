"""Every environment variable that is not an option of ``gpustack start``, declared once, like options.

``Environment`` is read by the daemon. ``ModelVariables`` are written in the environment of a model, and
``CommandVariables`` are read by the other commands: both are declared for the documents and for the checks of names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from gpustack.config.option import LEGACY, option, table
from gpustack.config.options import Options
from gpustack.config.origin import ConfigFault, Origin
from gpustack.config.url import mask_url
from gpustack.config.variable import is_read
from gpustack.text import character_fault, trimmed


def _variable(help: str, **spelling: Any) -> Any:
    return option(default=None, help=help, **spelling)


@attrs.frozen(kw_only=True)
class Environment:
    """Variables of the daemon. Times are in the unit that the variable's name says, else in seconds."""

    hf_endpoint: str | None = option(
        default=None,
        env="HF_ENDPOINT",
        form="http_url",
        help="Address of the Hugging Face Hub or of a mirror of it, for example https://hf-mirror.com.",
        sample="https://hf-mirror.com",
    )
    modelscope_endpoint: str | None = option(
        default=None,
        env="MODELSCOPE_ENDPOINT",
        form="http_url",
        help="Address of ModelScope or of a mirror of it.",
        sample="https://modelscope.example.com",
    )
    modelscope_domain: str | None = option(
        default=None,
        env="MODELSCOPE_DOMAIN",
        form="header_value",
        help="The same as the name of a host alone, which is asked over https. MODELSCOPE_ENDPOINT wins.",
        sample="www.modelscope.ai",
    )
    modelscope_api_token: str | None = option(
        default=None,
        env="MODELSCOPE_API_TOKEN",
        aliases=("MODELSCOPE_SDK_TOKEN",),
        form="header_value",
        secret=True,
        help="Access token for ModelScope.",
        sample="your_modelscope_token",
    )
    http_proxy: str | None = option(
        default=None,
        env="HTTP_PROXY",
        aliases=("http_proxy",),
        secret=mask_url,
        help="Proxy for outgoing plain HTTP: http, https, socks5 or socks5h, with http meant where no scheme stands; "
        "special characters of user and password percent-encoded. In lower case it wins, also when it is empty. This "
        "machine itself and the cluster are never reached through a proxy.",
        sample="http://proxy:3128",
    )
    https_proxy: str | None = option(
        default=None,
        env="HTTPS_PROXY",
        aliases=("https_proxy",),
        secret=mask_url,
        help="Proxy for outgoing HTTPS, in the same forms.",
        sample="http://proxy:3128",
    )
    all_proxy: str | None = option(
        default=None,
        env="ALL_PROXY",
        aliases=("all_proxy",),
        secret=mask_url,
        help="Proxy for what the other two do not name, in the same forms.",
        sample="http://proxy:3128",
    )
    no_proxy: str | None = option(
        default=None,
        env="NO_PROXY",
        aliases=("no_proxy",),
        help="What is reached without a proxy, between commas or blanks: names with all below them, patterns with *, "
        "IPv4 and IPv6 addresses, networks such as 10.0.0.0/8, each with :port where only that one is meant; * alone "
        "for everything. Names are not looked up for networks.",
        sample="localhost,10.0.0.0/8",
    )
    disable_dynamic_link_llama_box: bool = option(
        default=False,
        help="Fetch the statically linked build of llama.cpp (once llama-box), where there is one.",
        sample="true",
    )
    db_echo: bool = option(default=False, help="Log every SQL statement, without its values.", sample="true")
    db_pool_size: int = option(
        default=5, low=1, high=1000, help="Database connections for reading that are kept open.", sample="6"
    )
    db_max_overflow: int = option(
        default=10, low=0, high=1000, help="Database connections beyond those.", sample="11"
    )
    db_pool_timeout: int = option(
        default=30, low=1, high=3600, help="Seconds to wait for a database connection.", sample="31"
    )
    proxy_timeout_seconds: float = option(
        default=1800.0,
        low=1,
        high=604800,
        help="Seconds that an engine may take to the first byte of an answer, and from one byte to the next.",
        sample="60",
    )
    tcp_connector_limit: int | None = option(
        default=None,
        low=1,
        high=1000000,
        shown="no limit",
        help="Requests that may be under way to engines at once; more are answered 503.",
        sample="1000",
    )
    jwt_token_expire_minutes: float = option(
        default=120.0, low=1, high=5256000, help="Minutes that a login lasts.", sample="60"
    )
    model_evaluation_cache_max_size: int = option(
        default=1000, low=0, high=1000000, help="Model evaluations that are kept.", sample="10"
    )
    model_evaluation_cache_ttl: float = option(
        default=3600.0,
        low=0,
        high=604800,
        help="Seconds that one is kept. It never outlives a change of workers, models, instances or files.",
        sample="60",
    )
    ray_placement_group_ready_timeout: float = option(
        default=30.0,
        low=1,
        high=86400,
        help="Seconds that a Ray placement group gets to become ready.",
        sample="60",
    )
    default_max_rpc_server_count: int = option(
        default=8,
        env="DEFAULT_MAX_RPC_SERVER_COUNT",
        low=0,
        high=1000,
        help="Most GPUs (or CPUs) of other workers that one llama.cpp uses over RPC. Read by the server.",
        sample="4",
    )
    default_max_rpc_combination_generate_gpu_count: int = option(
        default=16,
        env="DEFAULT_MAX_RPC_COMBINATION_GENERATE_GPU_COUNT",
        low=0,
        high=10000,
        help="Most GPUs of other workers that are considered for that: those with most free memory. More cost no time "
        "to speak of. Read by the server.",
        sample="8",
    )
    cuda_version: str | None = option(
        default=None,
        env="CUDA_VERSION",
        help="CUDA version for which tools are fetched, in place of what the driver runs.",
        sample="12.8",
    )
    cann_version: str | None = option(
        default=None,
        env="CANN_VERSION",
        help="Version of CANN whose environment MindIE gets, in place of the one in use.",
        sample="8.2.RC1",
    )
    cann_chip: str | None = option(
        default=None, env="CANN_CHIP", help="Line of Ascend chips, in place of detection.", sample="910b"
    )


@attrs.frozen(kw_only=True)
class ModelVariables:
    """Variables written in the environment of a model, never in that of the daemon."""

    model_vram_claim: str | None = _variable("Bytes of VRAM to claim, in place of the estimate.")
    model_ram_claim: str | None = _variable("Bytes of RAM to claim, in place of the estimate.")
    apply_qwen3_reranker_templates: str | None = _variable(
        "Wrap what is reranked in the prompt format of Qwen3-Reranker."
    )
    backend_deps: str | None = _variable(
        "Requirements to install beside a pinned Python engine, between commas."
    )
    reserved_memory_gb: str | None = _variable(
        "GiB of VRAM that MindIE keeps besides the model (3).", env="RESERVED_MEMORY_GB"
    )


@attrs.frozen(kw_only=True)
class CommandVariables:
    """Variables of the other commands."""

    server_url: str | None = _variable("Server that the commands talk to (the one on this machine).")
    api_key: str | None = _variable("API key of the commands.")
    context: str | None = _variable("Server that the commands talk to, by its name in gpustack context.")
    chat_history: str | None = _variable("File that keeps the questions of chats, or off.")
    import_key: str | None = _variable(
        "API key, or password of the database, with which gpustack import reads another installation."
    )
    save_archive: str | None = _variable("--save-archive of download-tools.")
    load_archive: str | None = _variable("--load-archive of download-tools.")
    system: str | None = _variable("--system of download-tools.")
    arch: str | None = _variable("--arch of download-tools.")
    device: str | None = _variable("--device of download-tools.")


def declared_names(*classes: type[attrs.AttrsInstance]) -> set[str]:
    """The variables that ``classes`` declare, in every spelling; those of ``Options`` also under the older prefix."""
    names = {name for cls in classes for one in table(cls) for name in (one.env, *one.aliases)}
    if Options in classes:
        names |= {option.legacy_env for option in table(Options)}
    return names


def unknown_variables(env: Mapping[str, str]) -> list[str]:
    """Variables of ``env`` with our prefixes that nothing reads, each with the known one that it resembles, if any."""
    import difflib

    known = declared_names(Options, Environment, ModelVariables, CommandVariables)
    current = [name for name in known if not name.startswith(LEGACY)]
    unknown = []
    for name in sorted(env):
        if name.startswith(("GPUSTACK_", LEGACY)) and name not in known:
            close = difflib.get_close_matches(name, current, n=1, cutoff=0.8)
            unknown.append(f"{name} (did you mean {close[0]}?)" if close else name)
    return unknown


def foreign_variable_faults(env: Mapping[str, str]) -> list[ConfigFault]:
    """Characters that must not be in variables which only libraries, child processes or other commands read.

    The values of those that the daemon reads are checked by ``converter.convert``.
    """
    checked = declared_names(Options, Environment, ModelVariables)
    return [
        ConfigFault(Origin("environment", name), sentence)
        for name, value in sorted(env.items())
        if name not in checked and is_read(name) and (sentence := character_fault(trimmed(value)))
    ]
