"""The environment variables that are no option: what each means, its default, and their typed values."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from gpustack.config.option import mask_url, option


@attrs.frozen(kw_only=True)
class Environment:
    """The variables of the daemon that no option sets. Times are in the unit that the variable's name says."""

    hf_endpoint: str | None = option(
        default=None,
        env="HF_ENDPOINT",
        help="Address of the Hugging Face Hub or of a mirror of it, for example https://hf-mirror.com.",
        sample="https://hf-mirror.com",
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
        built=False,
        low=1,
        high=86400,
        help="Seconds that a Ray placement group gets to become ready.",
        sample="60",
    )
    default_max_rpc_server_count: int = option(
        default=8,
        env="DEFAULT_MAX_RPC_SERVER_COUNT",
        built=False,
        low=0,
        high=1000,
        help="Most remote GPUs that are combined over RPC without being asked to.",
        sample="4",
    )
    default_max_rpc_combination_generate_gpu_count: int = option(
        default=16,
        env="DEFAULT_MAX_RPC_COMBINATION_GENERATE_GPU_COUNT",
        built=False,
        low=0,
        high=10000,
        help="Number of GPUs above which combinations over RPC are not looked for.",
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
        built=False,
        help="CANN version, in place of detection.",
        sample="8.2",
    )
    cann_chip: str | None = option(
        default=None, env="CANN_CHIP", built=False, help="Ascend chip, in place of detection.", sample="910b"
    )


#: Variables written in a model's own environment, never in the daemon's.
PER_MODEL: Mapping[str, str] = {
    "GPUSTACK_MODEL_VRAM_CLAIM": "Bytes of VRAM to claim, in place of the estimate.",
    "GPUSTACK_MODEL_RAM_CLAIM": "Bytes of RAM to claim, in place of the estimate.",
    "GPUSTACK_APPLY_QWEN3_RERANKER_TEMPLATES": "Wrap what is reranked in the prompt format of Qwen3-Reranker.",
    "GPUSTACK_BACKEND_DEPS": "Requirements to install beside a pinned Python engine, between commas.",
    "RESERVED_MEMORY_GB": "GiB of VRAM that MindIE keeps besides the model (3).",
}

#: Variables of the other commands.
OTHER_COMMANDS: Mapping[str, str] = {
    "GPUSTACK_SERVER_URL": "Server that the commands talk to (the one on this machine).",
    "GPUSTACK_API_KEY": "API key of the commands.",
    "GPUSTACK_CHAT_HISTORY": "File that keeps the questions of chats, or off.",
    "GPUSTACK_SAVE_ARCHIVE": "--save-archive of download-tools.",
    "GPUSTACK_LOAD_ARCHIVE": "--load-archive of download-tools.",
    "GPUSTACK_SYSTEM": "--system of download-tools.",
    "GPUSTACK_ARCH": "--arch of download-tools.",
    "GPUSTACK_DEVICE": "--device of download-tools.",
}
