"""The flags of llama-server that the embedded build supports, as a table, and those it refuses, with the reason."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from .flag import Flag, choice, members, put, switch, valued

_EXPERTS = r"\.ffn_(up|down|gate|gate_up)_(ch|)exps=CPU"
_MOST_DEVICES = 128

REFUSED = {
    **dict.fromkeys(("--rpc",), "it is built without RPC; install a llama-server that has it"),
    **dict.fromkeys(
        ("-dev", "--device", "-mmdev", "--mmproj-device"),
        "choose devices with CUDA_VISIBLE_DEVICES or its like",
    ),
    **dict.fromkeys(
        ("--models-dir", "--models-preset", "--models-max", "--models-autoload", "--no-models-autoload"),
        "it serves one model",
    ),
    **dict.fromkeys(
        ("-hf", "-hfr", "--hf-repo", "-hff", "--hf-file", "-mu", "--model-url", "-mmu", "--mmproj-url"),
        "give a local file with --model",
    ),
    **dict.fromkeys(("--api-key", "--api-key-file"), "set LLAMA_API_KEY in the environment"),
    **dict.fromkeys(("--control-vector", "--control-vector-scaled"), "install a llama-server"),
    **dict.fromkeys(("--override-kv",), "install a llama-server"),
    **dict.fromkeys(
        ("-C", "--cpu-mask", "-Cr", "--cpu-range", "-Cb", "--cpu-mask-batch", "-Crb", "--cpu-range-batch"),
        "bind the process with taskset instead",
    ),
    **dict.fromkeys(
        ("--grammar", "--grammar-file", "-j", "--json-schema", "-jf", "--json-schema-file", "-l", "--logit-bias"),
        "send it with each request",
    ),
}  # fmt: skip


def flags(xlc: ModuleType) -> tuple[Flag, ...]:
    """The table for the module ``xllamacpp`` as loaded."""
    return (
        *_serving(),
        *_context(xlc),
        *_memory(xlc),
        *_position(xlc),
        *_chat(xlc),
        *_sampling(),
        *_drafting(xlc),
    )


def _serving() -> tuple[Flag, ...]:
    return (
        valued("-m --model", "model.path", str),
        valued("-mm --mmproj", "mmproj.path", str),
        switch("--mmproj-offload", "mmproj_use_gpu", True),
        switch("--no-mmproj-offload", "mmproj_use_gpu", False),
        switch("--no-mmproj --no-mmproj-auto", "no_mmproj", True),
        valued("--image-min-tokens", "image_min_tokens", int),
        valued("--image-max-tokens", "image_max_tokens", int),
        valued("--mtmd-batch-max-tokens", "mtmd_batch_max_tokens", int),
        valued("--video-fps", "video_fps", float),
        valued("--video-ffmpeg-dir", "video_ffmpeg_bin_dir", str),
        valued("--host", "hostnames", _listed),
        valued("--port", "port", _port),
        switch("--reuse-port", "reuse_port", True),
        valued("--api-prefix", "api_prefix", str),
        valued("-a --alias", "model_alias", lambda text: {text}),
        valued("--tags", "model_tags", lambda text: set(_listed(text))),
        valued("--ssl-key-file", "ssl_file_key", str),
        valued("--ssl-cert-file", "ssl_file_cert", str),
        valued("--cors-origins", "cors_origins", str),
        valued("--cors-methods", "cors_methods", str),
        valued("--cors-headers", "cors_headers", str),
        switch("--cors-credentials", "cors_credentials", True),
        switch("--no-cors-credentials", "cors_credentials", False),
        valued("--threads-http", "n_threads_http", int),
        Flag(("-to", "--timeout"), _timeout),
        valued("--sse-ping-interval", "sse_ping_interval", int),
        valued("--path", "public_path", str),
        switch("--ui --webui", "ui", True),
        switch("--no-ui --no-webui", "ui", False),
        switch("--metrics", "endpoint_metrics", True),
        switch("--props", "endpoint_props", True),
        switch("--slots", "endpoint_slots", True),
        switch("--no-slots", "endpoint_slots", False),
        valued("--slot-save-path", "slot_save_path", lambda text: text if text.endswith("/") else f"{text}/"),
        valued("--media-path", "media_path", str),
        valued("--sleep-idle-seconds", "sleep_idle_seconds", int),
        switch("--offline", "offline", True),
        valued("-lv --verbosity --log-verbosity", "verbosity", int),
        switch("-v --verbose --log-verbose", "verbosity", 0x7FFFFFFF),
        switch("--log-jsonl", "log_json", True),
        switch("--no-log-jsonl", "log_json", False),
        switch("--perf", "no_perf", False),
        switch("--no-perf", "no_perf", True),
    )


def _context(xlc: ModuleType) -> tuple[Flag, ...]:
    kinds = {
        word: kind
        for word, kind in members(xlc.ggml_type, "GGML_TYPE_").items()
        if word in ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1")
    }
    attention = members(
        xlc.llama_flash_attn_type,
        "LLAMA_FLASH_ATTN_TYPE_",
        **{"on": "enabled", "off": "disabled", "1": "enabled", "0": "disabled"},
    )
    return (
        valued("-c --ctx-size", "n_ctx", int),
        valued("-n --predict --n-predict", "n_predict", int),
        valued("-b --batch-size", "n_batch", int),
        valued("-ub --ubatch-size", "n_ubatch", int),
        valued("--keep", "n_keep", int),
        valued("-np --parallel", "n_parallel", int),
        switch("-kvu --kv-unified", "kv_unified", True),
        switch("-no-kvu --no-kv-unified", "kv_unified", False),
        valued("--kv-unified-per-slot", "kv_unified_per_slot", int),
        switch("-cb --cont-batching", "cont_batching", True),
        switch("-nocb --no-cont-batching", "cont_batching", False),
        switch("--context-shift", "ctx_shift", True),
        switch("--no-context-shift", "ctx_shift", False),
        switch("--swa-full", "swa_full", True),
        valued("-ctxcp --ctx-checkpoints --swa-checkpoints", "n_ctx_checkpoints", int),
        valued("-cms --checkpoint-min-step", "checkpoint_min_step", int),
        switch("--cache-prompt", "cache_prompt", True),
        switch("--no-cache-prompt", "cache_prompt", False),
        valued("--cache-reuse", "n_cache_reuse", int),
        valued("-cram --cache-ram", "cache_ram_mib", int),
        switch("--cache-idle-slots", "cache_idle_slots", True),
        switch("--no-cache-idle-slots", "cache_idle_slots", False),
        valued("-sps --slot-prompt-similarity", "slot_prompt_similarity", float),
        choice("-ctk --cache-type-k", "cache_type_k", kinds),
        choice("-ctv --cache-type-v", "cache_type_v", kinds),
        choice("-fa --flash-attn", "flash_attn_type", attention),
        switch("--warmup", "warmup", True),
        switch("--no-warmup", "warmup", False),
        switch("--embedding --embeddings", "embedding", True),
        valued("--embd-normalize", "embd_normalize", int),
        choice("--pooling", "pooling_type", members(xlc.llama_pooling_type, "LLAMA_POOLING_TYPE_")),
        Flag(("--rerank", "--reranking"), _ranking(xlc), takes_value=False),
        valued("--lora", "lora_adapters", _adapters(xlc)),
        valued("--lora-scaled", "lora_adapters", _scaled_adapters(xlc)),
        switch("--lora-init-without-apply", "lora_init_without_apply", True),
    )


def _memory(xlc: ModuleType) -> tuple[Flag, ...]:
    modes = members(
        xlc.llama_load_mode, "LLAMA_LOAD_MODE_", **{"dio": "direct_io", "mmap+mlock": "mmap_mlock"}
    )
    return (
        valued("-ngl --gpu-layers --n-gpu-layers", "n_gpu_layers", _layers),
        valued("-mg --main-gpu", "main_gpu", int),
        choice("-sm --split-mode", "split_mode", members(xlc.llama_split_mode, "LLAMA_SPLIT_MODE_")),
        valued("-ts --tensor-split", "tensor_split", _split),
        valued("-ot --override-tensor", "tensor_buft_overrides", str),
        switch("-cmoe --cpu-moe", "tensor_buft_overrides", _EXPERTS),
        valued("-ncmoe --n-cpu-moe", "tensor_buft_overrides", _experts),
        valued("--moe-cache-mib", "moe_cache_size", int),
        switch("-kvo --kv-offload", "no_kv_offload", False),
        switch("-nkvo --no-kv-offload", "no_kv_offload", True),
        switch("--op-offload", "no_op_offload", False),
        switch("--no-op-offload", "no_op_offload", True),
        switch("--repack", "no_extra_bufts", False),
        switch("-nr --no-repack", "no_extra_bufts", True),
        switch("--no-host", "no_host", True),
        valued("-fit --fit", "fit_params", _yes_or_no),
        valued("-fitt --fit-target", "fit_params_target", _targets),
        valued("-fitc --fit-ctx", "fit_params_min_ctx", int),
        choice("-lm --load-mode", "load_mode", modes),
        choice("-lzm --lazy-mode", "lazy_mode", members(xlc.llama_lazy_mode, "LLAMA_LAZY_MODE_")),
        switch("--mmap", "load_mode", modes["mmap"]),
        switch("--no-mmap", "load_mode", modes["none"]),
        switch("--mlock", "load_mode", modes["mmap_mlock"]),
        switch("--check-tensors", "check_tensors", True),
        choice("--numa", "numa", members(xlc.ggml_numa_strategy, "GGML_NUMA_STRATEGY_")),
        valued("-t --threads", "cpuparams.n_threads", int),
        valued("-tb --threads-batch", "cpuparams_batch.n_threads", int),
        valued("--poll", "cpuparams.poll", int),
        valued("--poll-batch", "cpuparams_batch.poll", int),
    )


def _position(xlc: ModuleType) -> tuple[Flag, ...]:
    return (
        choice(
            "--rope-scaling",
            "rope_scaling_type",
            members(xlc.llama_rope_scaling_type, "LLAMA_ROPE_SCALING_TYPE_"),
        ),
        valued("--rope-scale", "rope_freq_scale", lambda text: 1.0 / float(text)),
        valued("--rope-freq-base", "rope_freq_base", float),
        valued("--rope-freq-scale", "rope_freq_scale", float),
        valued("--yarn-orig-ctx", "yarn_orig_ctx", int),
        valued("--yarn-ext-factor", "yarn_ext_factor", float),
        valued("--yarn-attn-factor", "yarn_attn_factor", float),
        valued("--yarn-beta-slow", "yarn_beta_slow", float),
        valued("--yarn-beta-fast", "yarn_beta_fast", float),
    )


def _chat(xlc: ModuleType) -> tuple[Flag, ...]:
    formats = members(
        xlc.common_reasoning_format,
        "COMMON_REASONING_FORMAT_",
        **{"deepseek-legacy": "deepseek_legacy"},
    )
    return (
        valued("--chat-template", "chat_template", str),
        valued("--chat-template-file", "chat_template", lambda text: Path(text).read_text("utf-8")),
        valued("--chat-template-kwargs", "default_template_kwargs", _keywords),
        switch("--jinja", "use_jinja", True),
        switch("--no-jinja", "use_jinja", False),
        choice("--reasoning-format", "reasoning_format", formats),
        choice("-rea --reasoning", "enable_reasoning", {"on": 1, "off": 0, "auto": -1}),
        valued("--reasoning-budget", "sampling.reasoning_budget_tokens", int),
        valued("--reasoning-budget-message", "sampling.reasoning_budget_message", str),
        switch("--skip-chat-parsing", "force_pure_content_parser", True),
        switch("--no-skip-chat-parsing", "force_pure_content_parser", False),
        switch("--prefill-assistant", "prefill_assistant", True),
        switch("--no-prefill-assistant", "prefill_assistant", False),
        switch("-sp --special", "special", True),
        switch("-e --escape", "escape", True),
        switch("--no-escape", "escape", False),
    )


def _sampling() -> tuple[Flag, ...]:
    return (
        valued("--samplers", "sampling.samplers", str),
        valued("-s --seed", "sampling.seed", lambda text: int(text) & 0xFFFFFFFF),
        switch("--ignore-eos", "sampling.ignore_eos", True),
        valued("--temp --temperature", "sampling.temp", float),
        valued("--top-k", "sampling.top_k", int),
        valued("--top-p", "sampling.top_p", float),
        valued("--min-p", "sampling.min_p", float),
        valued("--typical --typical-p", "sampling.typ_p", float),
        valued("--xtc-probability", "sampling.xtc_probability", float),
        valued("--xtc-threshold", "sampling.xtc_threshold", float),
        valued("--repeat-last-n", "sampling.penalty_last_n", int),
        valued("--repeat-penalty", "sampling.penalty_repeat", float),
        valued("--presence-penalty", "sampling.penalty_present", float),
        valued("--frequency-penalty", "sampling.penalty_freq", float),
        valued("--dry-multiplier", "sampling.dry_multiplier", float),
        valued("--dry-base", "sampling.dry_base", float),
        valued("--dry-allowed-length", "sampling.dry_allowed_length", int),
        valued("--dry-penalty-last-n", "sampling.dry_penalty_last_n", int),
        valued("--adaptive-target", "sampling.adaptive_target", float),
        valued("--adaptive-decay", "sampling.adaptive_decay", float),
        valued("--dynatemp-exp", "sampling.dynatemp_exponent", float),
        valued("--mirostat", "sampling.mirostat", int),
        valued("--mirostat-lr", "sampling.mirostat_eta", float),
        valued("--mirostat-ent", "sampling.mirostat_tau", float),
        switch("-bs --backend-sampling", "sampling.backend_sampling", True),
    )


def _drafting(xlc: ModuleType) -> tuple[Flag, ...]:
    types = members(xlc.common_speculative_type, "COMMON_SPECULATIVE_TYPE_")

    def kinds(text: str) -> list[object]:
        names = [name.strip().replace("-", "_") for name in text.split(",")]
        if unknown := [name for name in names if name not in types or name == "count"]:
            raise ValueError(f"is not known: {', '.join(unknown)}")
        return [types[name] for name in names]

    def draft(params: Any, text: str) -> None:
        put(params, "speculative.draft.mparams.path", text)
        if [kind.name for kind in params.speculative.types] == ["COMMON_SPECULATIVE_TYPE_NONE"]:
            params.speculative.types = [types["draft_simple"]]

    return (
        Flag(("-md", "--model-draft", "--spec-draft-model"), draft),
        valued("--spec-type", "speculative.types", kinds),
        valued(
            "-ngld --gpu-layers-draft --n-gpu-layers-draft --spec-draft-ngl",
            "speculative.draft.n_gpu_layers",
            _layers,
        ),
        valued("--spec-draft-n-max", "speculative.draft.n_max", int),
        valued("--spec-draft-n-min", "speculative.draft.n_min", int),
        valued("--spec-draft-p-min --draft-p-min", "speculative.draft.p_min", float),
        valued("--spec-draft-p-split --draft-p-split", "speculative.draft.p_split", float),
        valued("-td --threads-draft --spec-draft-threads", "speculative.draft.cpuparams.n_threads", int),
        valued("--spec-ngram-mod-n-min", "speculative.ngram_mod.n_min", int),
        valued("--spec-ngram-mod-n-max", "speculative.ngram_mod.n_max", int),
        valued("--spec-ngram-mod-n-match", "speculative.ngram_mod.n_match", int),
        valued("--spec-ngram-simple-size-n", "speculative.ngram_simple.size_n", int),
        valued("--spec-ngram-simple-size-m", "speculative.ngram_simple.size_m", int),
        valued("--spec-ngram-simple-min-hits", "speculative.ngram_simple.min_hits", int),
    )  # fmt: skip


def _listed(text: str) -> list[str]:
    return text.split(",")


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise ValueError("is not a port from 0 to 65535")
    return port


def _timeout(params: Any, text: str) -> None:
    params.timeout_read = params.timeout_write = int(text)


def _layers(text: str) -> int:
    return {"auto": -1, "all": -2}.get(text) or int(text)


def _split(text: str) -> list[float]:
    shares = [float(share) for share in text.replace("/", ",").split(",")]
    return [*shares, *([0.0] * _MOST_DEVICES)][:_MOST_DEVICES]


def _experts(text: str) -> str:
    return ",".join(rf"blk\.{layer}{_EXPERTS}" for layer in range(int(text)))


def _yes_or_no(text: str) -> bool:
    if text not in ("on", "off"):
        raise ValueError("is not one of on, off")
    return text == "on"


def _targets(text: str) -> list[int]:
    mebibytes = [int(part) for part in text.split(",")]
    return [size << 20 for size in (mebibytes * _MOST_DEVICES if len(mebibytes) == 1 else mebibytes)]


def _keywords(text: str) -> dict[str, str]:
    given = json.loads(text)
    if not isinstance(given, dict):
        raise ValueError("is not a JSON object")
    return {name: json.dumps(value) for name, value in given.items()}


def _ranking(xlc: ModuleType) -> Callable[[Any, str], None]:
    def rank(params: Any, _: str) -> None:
        params.embedding = True
        params.pooling_type = xlc.llama_pooling_type.LLAMA_POOLING_TYPE_RANK

    return rank


def _adapters(xlc: ModuleType) -> Callable[[str], object]:
    return lambda text: [xlc.CommonAdapterLoraInfo(path, 1.0) for path in text.split(",")]


def _scaled_adapters(xlc: ModuleType) -> Callable[[str], object]:
    def read(text: str) -> object:
        pairs = [part.rpartition(":") for part in text.split(",")]
        return [xlc.CommonAdapterLoraInfo(path, float(scale)) for path, _, scale in pairs]

    return read
