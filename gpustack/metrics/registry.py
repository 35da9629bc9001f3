"""Every metric, declared as one constant: its name as scraped, its help, and its labels in order."""

from __future__ import annotations

from enum import StrEnum

import attrs


class MetricKind(StrEnum):
    """The types of Prometheus."""

    GAUGE = "gauge"
    COUNTER = "counter"
    HISTOGRAM = "histogram"
    INFO = "info"
    SUMMARY = "summary"


class MetricScope(StrEnum):
    """Who exports it."""

    SERVER = "server"
    WORKER = "worker"
    RUNTIME = "worker, read from engines"
    PROCESS = "server and worker"


_SUFFIX = {MetricKind.COUNTER: "_total", MetricKind.INFO: "_info"}
_UNITS = ("seconds", "bytes", "celsius", "ratio")


@attrs.frozen(kw_only=True, cache_hash=True)
class Metric:
    """A metric. ``name`` is the name of its samples: that of a counter ends in ``_total``, of an info in ``_info``."""

    name: str
    kind: MetricKind = MetricKind.GAUGE
    scope: MetricScope
    help: str
    labels: tuple[str, ...] = ()

    @property
    def family(self) -> str:
        """The name without the suffix of its kind."""
        return self.name.removesuffix(_SUFFIX.get(self.kind, ""))

    @property
    def unit(self) -> str:
        """The unit in its name, or an empty text."""
        return next((unit for unit in _UNITS if self.family.endswith(f"_{unit}")), "")


_CLUSTER = ("cluster_id", "cluster_name")
_MODEL = (*_CLUSTER, "model_id", "model_name")
_NODE = ("worker_id", "worker_name", "instance")
_GPU = (*_NODE, "gpu_index", "gpu_name", "gpu_chip_index")
_DISK = (*_NODE, "mountpoint")
_ENGINE = (
    "worker_id",
    "worker_name",
    "model_id",
    "model_name",
    "model_instance_id",
    "model_instance_name",
    "runtime",
)

# --- the server: what is deployed, and how it fares

CLUSTER = Metric(
    name="gpustack:cluster_info",
    kind=MetricKind.INFO,
    scope=MetricScope.SERVER,
    help="The cluster; always 1.",
    labels=(*_CLUSTER, "provider"),
)
CLUSTER_STATUS = Metric(
    name="gpustack:cluster_status",
    scope=MetricScope.SERVER,
    help="1 for the state the cluster is in: ready, or draining while the server stops.",
    labels=(*_CLUSTER, "state"),
)
LEADING = Metric(
    name="gpustack:server_leading",
    scope=MetricScope.SERVER,
    help="1 for the server that places instances and judges workers, of all on one database; 0 for the others.",
    labels=_CLUSTER,
)
WORKER_STATUS = Metric(
    name="gpustack:worker_status",
    scope=MetricScope.SERVER,
    help="1 for the state each worker is in: ready, not_ready or unreachable.",
    labels=(*_CLUSTER, "worker_id", "worker_name", "state"),
)
WORKER_SILENCE = Metric(
    name="gpustack:worker_silence_seconds",
    scope=MetricScope.SERVER,
    help="How long ago each worker was heard last, by the server's clock.",
    labels=(*_CLUSTER, "worker_id", "worker_name"),
)
MODEL = Metric(
    name="gpustack:model_info",
    kind=MetricKind.INFO,
    scope=MetricScope.SERVER,
    help="What each deployment runs; always 1.",
    labels=(*_MODEL, "runtime", "runtime_version", "source", "source_key"),
)
MODEL_DESIRED = Metric(
    name="gpustack:model_desired_instances",
    scope=MetricScope.SERVER,
    help="How many instances of each model are wanted.",
    labels=_MODEL,
)
MODEL_RUNNING = Metric(
    name="gpustack:model_running_instances",
    scope=MetricScope.SERVER,
    help="How many instances of each model run.",
    labels=_MODEL,
)
MODEL_SURVIVES = Metric(
    name="gpustack:model_survives_worker_loss",
    scope=MetricScope.SERVER,
    help="0 for a model of which nothing would serve any more if one of its workers were lost, with no room for it "
    "elsewhere; 1 for other models that serve. It is looked at anew within a minute or two of a change.",
    labels=_MODEL,
)
INSTANCE_STATUS = Metric(
    name="gpustack:model_instance_status",
    scope=MetricScope.SERVER,
    help="1 for the state each instance is in.",
    labels=(
        *_CLUSTER,
        "worker_id",
        "worker_name",
        "model_id",
        "model_name",
        "model_instance_name",
        "state",
    ),
)
INSTANCE_RESTARTS = Metric(
    name="gpustack:model_instance_restarts_total",
    kind=MetricKind.COUNTER,
    scope=MetricScope.SERVER,
    help="How often the engine of each instance was started again after it had failed.",
    labels=(*_MODEL, "model_instance_name"),
)
PENDING = Metric(
    name="gpustack:pending_instances",
    scope=MetricScope.SERVER,
    help="Instances that wait for a place, by what they wait for: reading_header, no_worker, no_ready_worker, "
    "does_not_fit, or not_looked_at.",
    labels=(*_CLUSTER, "waits_for"),
)

# --- the server: what passes through it

REQUESTS = Metric(
    name="gpustack:gateway_requests_total",
    kind=MetricKind.COUNTER,
    scope=MetricScope.SERVER,
    help="Inference requests that were answered, by model, route and status; model_id is empty where no model of "
    "that name is deployed, and 499 is a client that left before its answer began.",
    labels=(*_MODEL, "route", "status"),
)
FIRST_BYTE = Metric(
    name="gpustack:gateway_time_to_first_byte_seconds",
    kind=MetricKind.HISTOGRAM,
    scope=MetricScope.SERVER,
    help="From the head of an inference request to the first byte of its answer.",
    labels=_MODEL,
)
TOKENS = Metric(
    name="gpustack:gateway_tokens_total",
    kind=MetricKind.COUNTER,
    scope=MetricScope.SERVER,
    help="Tokens of inference requests, as engines counted them: prompt or completion.",
    labels=(*_MODEL, "kind"),
)
REFUSED = Metric(
    name="gpustack:gateway_limit_refusals_total",
    kind=MetricKind.COUNTER,
    scope=MetricScope.SERVER,
    help="Inference requests that were refused by a limit, by whose it is (key, user or model) and which: "
    "requests_per_minute, tokens_per_minute, concurrent_requests, tokens_per_day or tokens_per_month.",
    labels=(*_CLUSTER, "of", "limit"),
)
IN_FLIGHT = Metric(
    name="gpustack:gateway_requests_in_flight",
    scope=MetricScope.SERVER,
    help="Inference requests under way.",
    labels=_CLUSTER,
)
COMMITS = Metric(
    name="gpustack:store_commits_total",
    kind=MetricKind.COUNTER,
    scope=MetricScope.SERVER,
    help="Commits to the database that changed a record, since the start of the server.",
    labels=_CLUSTER,
)
WRITES_WAITING = Metric(
    name="gpustack:store_writes_waiting",
    scope=MetricScope.SERVER,
    help="Writes that wait for the database.",
    labels=_CLUSTER,
)

# --- the worker: its machine

NODE_OS = Metric(
    name="gpustack:worker_node_os_info",
    kind=MetricKind.INFO,
    scope=MetricScope.WORKER,
    help="The operating system; always 1.",
    labels=(*_NODE, "name", "version"),
)
NODE_KERNEL = Metric(
    name="gpustack:worker_node_kernel_info",
    kind=MetricKind.INFO,
    scope=MetricScope.WORKER,
    help="The kernel; always 1.",
    labels=(*_NODE, "name", "release", "version", "architecture"),
)
NODE_UPTIME = Metric(
    name="gpustack:worker_node_uptime_seconds",
    scope=MetricScope.WORKER,
    help="Since the machine was booted.",
    labels=_NODE,
)
NODE_CORES = Metric(
    name="gpustack:worker_node_cpu_cores",
    scope=MetricScope.WORKER,
    help="Logical cores that may be used.",
    labels=_NODE,
)
NODE_CPU = Metric(
    name="gpustack:worker_node_cpu_utilization_rate",
    scope=MetricScope.WORKER,
    help="Load of the cores in percent.",
    labels=_NODE,
)
NODE_MEMORY_TOTAL = Metric(
    name="gpustack:worker_node_memory_total_bytes",
    scope=MetricScope.WORKER,
    help="Host memory that may be used.",
    labels=_NODE,
)
NODE_MEMORY_USED = Metric(
    name="gpustack:worker_node_memory_used_bytes",
    scope=MetricScope.WORKER,
    help="Host memory in use.",
    labels=_NODE,
)
NODE_MEMORY = Metric(
    name="gpustack:worker_node_memory_utilization_rate",
    scope=MetricScope.WORKER,
    help="Host memory in use in percent.",
    labels=_NODE,
)
GPU = Metric(
    name="gpustack:worker_node_gpu_info",
    kind=MetricKind.INFO,
    scope=MetricScope.WORKER,
    help="Each accelerator; always 1.",
    labels=_GPU,
)
GPU_CORES = Metric(
    name="gpustack:worker_node_gpu_cores",
    scope=MetricScope.WORKER,
    help="Compute cores of each accelerator.",
    labels=_GPU,
)
GPU_LOAD = Metric(
    name="gpustack:worker_node_gpu_utilization_rate",
    scope=MetricScope.WORKER,
    help="Load of each accelerator in percent.",
    labels=_GPU,
)
GPU_TEMPERATURE = Metric(
    name="gpustack:worker_node_gpu_temperature_celsius",
    scope=MetricScope.WORKER,
    help="Temperature of each accelerator.",
    labels=_GPU,
)
GRAM_TOTAL = Metric(
    name="gpustack:worker_node_gram_total_bytes",
    scope=MetricScope.WORKER,
    help="Memory of each accelerator.",
    labels=_GPU,
)
GRAM_ALLOCATED = Metric(
    name="gpustack:worker_node_gram_allocated_bytes",
    scope=MetricScope.WORKER,
    help="Memory of each accelerator that instances placed there have claimed, an estimate.",
    labels=_GPU,
)
GRAM_USED = Metric(
    name="gpustack:worker_node_gram_used_bytes",
    scope=MetricScope.WORKER,
    help="Memory of each accelerator in use.",
    labels=_GPU,
)
GRAM = Metric(
    name="gpustack:worker_node_gram_utilization_rate",
    scope=MetricScope.WORKER,
    help="Memory of each accelerator in use in percent.",
    labels=_GPU,
)
DISK_TOTAL = Metric(
    name="gpustack:worker_node_filesystem_total_bytes",
    scope=MetricScope.WORKER,
    help="Size of each file system.",
    labels=_DISK,
)
DISK_USED = Metric(
    name="gpustack:worker_node_filesystem_used_bytes",
    scope=MetricScope.WORKER,
    help="Space of each file system in use.",
    labels=_DISK,
)
DISK = Metric(
    name="gpustack:worker_node_filesystem_utilization_rate",
    scope=MetricScope.WORKER,
    help="Space of each file system in use in percent.",
    labels=_DISK,
)
ENGINE_ANSWERED = Metric(
    name="gpustack:worker_engine_metrics_up",
    scope=MetricScope.WORKER,
    help="Whether the engine of a running instance answered when it was asked for its metrics.",
    labels=_ENGINE,
)

# --- what engines say, under one name whatever the engine

REQUESTS_RUNNING = Metric(
    name="gpustack:num_requests_running",
    scope=MetricScope.RUNTIME,
    help="Requests that the engine works on.",
    labels=_ENGINE,
)
REQUESTS_WAITING = Metric(
    name="gpustack:num_requests_waiting",
    scope=MetricScope.RUNTIME,
    help="Requests that wait in the engine.",
    labels=_ENGINE,
)
REQUESTS_SWAPPED = Metric(
    name="gpustack:num_requests_swapped",
    scope=MetricScope.RUNTIME,
    help="Requests that the engine has swapped out.",
    labels=_ENGINE,
)
PREFIX_HIT_RATE = Metric(
    name="gpustack:prefix_cache_hit_rate",
    scope=MetricScope.RUNTIME,
    help="Share of prompt tokens found in the prefix cache, as the engine reckons it.",
    labels=_ENGINE,
)
KV_USAGE = Metric(
    name="gpustack:kv_cache_usage_ratio",
    scope=MetricScope.RUNTIME,
    help="Share of the KV cache in use, 0 to 1.",
    labels=_ENGINE,
)
PREFIX_QUERIES = Metric(
    name="gpustack:prefix_cache_queries_total",
    kind=MetricKind.COUNTER,
    scope=MetricScope.RUNTIME,
    help="Prompt tokens that were looked up in the prefix cache.",
    labels=_ENGINE,
)
PREFIX_HITS = Metric(
    name="gpustack:prefix_cache_hits_total",
    kind=MetricKind.COUNTER,
    scope=MetricScope.RUNTIME,
    help="Prompt tokens that were found in the prefix cache.",
    labels=_ENGINE,
)
PROMPT_TOKENS = Metric(
    name="gpustack:prompt_tokens_total",
    kind=MetricKind.COUNTER,
    scope=MetricScope.RUNTIME,
    help="Prompt tokens of all requests, those that came out of a cache included.",
    labels=_ENGINE,
)
GENERATION_TOKENS = Metric(
    name="gpustack:generation_tokens_total",
    kind=MetricKind.COUNTER,
    scope=MetricScope.RUNTIME,
    help="Tokens that the engine has generated.",
    labels=_ENGINE,
)
REQUEST_PROMPT_TOKENS = Metric(
    name="gpustack:request_prompt_tokens",
    kind=MetricKind.HISTOGRAM,
    scope=MetricScope.RUNTIME,
    help="Prompt tokens of a request.",
    labels=_ENGINE,
)
REQUEST_GENERATION_TOKENS = Metric(
    name="gpustack:request_generation_tokens",
    kind=MetricKind.HISTOGRAM,
    scope=MetricScope.RUNTIME,
    help="Generated tokens of a request.",
    labels=_ENGINE,
)
FIRST_TOKEN = Metric(
    name="gpustack:time_to_first_token_seconds",
    kind=MetricKind.HISTOGRAM,
    scope=MetricScope.RUNTIME,
    help="From a request to its first token, within the engine.",
    labels=_ENGINE,
)
OUTPUT_TOKEN = Metric(
    name="gpustack:time_per_output_token_seconds",
    kind=MetricKind.HISTOGRAM,
    scope=MetricScope.RUNTIME,
    help="Between two tokens of an answer.",
    labels=_ENGINE,
)
REQUEST_LATENCY = Metric(
    name="gpustack:e2e_request_latency_seconds",
    kind=MetricKind.HISTOGRAM,
    scope=MetricScope.RUNTIME,
    help="From a request to the end of its answer, within the engine.",
    labels=_ENGINE,
)
REQUEST_SUCCESS = Metric(
    name="gpustack:request_success_total",
    kind=MetricKind.COUNTER,
    scope=MetricScope.RUNTIME,
    help="Requests that the engine has finished.",
    labels=_ENGINE,
)

# --- the process itself

BUILD = Metric(
    name="gpustack:build_info",
    kind=MetricKind.INFO,
    scope=MetricScope.PROCESS,
    help="The version of GPUStack; always 1.",
    labels=("version", "git_commit"),
)
LOOP_LAG = Metric(
    name="gpustack:event_loop_lag_seconds",
    scope=MetricScope.PROCESS,
    help="The longest that the event loop kept a timer waiting in the last half minute.",
)
TASKS = Metric(
    name="gpustack:tasks",
    scope=MetricScope.PROCESS,
    help="Tasks of the event loop that live.",
)
THREADS_BUSY = Metric(
    name="gpustack:threads_busy",
    scope=MetricScope.PROCESS,
    help="Threads at work, by what they are for.",
    labels=("pool",),
)
THREADS_WAITING = Metric(
    name="gpustack:threads_waiting",
    scope=MetricScope.PROCESS,
    help="Work that waits for a thread, by what it is for.",
    labels=("pool",),
)
PROCESS_CPU = Metric(
    name="process_cpu_seconds_total",
    kind=MetricKind.COUNTER,
    scope=MetricScope.PROCESS,
    help="Total user and system CPU time spent in seconds.",
)
PROCESS_FDS = Metric(
    name="process_open_fds",
    scope=MetricScope.PROCESS,
    help="Number of open file descriptors.",
)
PROCESS_MOST_FDS = Metric(
    name="process_max_fds",
    scope=MetricScope.PROCESS,
    help="Maximum number of open file descriptors.",
)
PROCESS_RESIDENT = Metric(
    name="process_resident_memory_bytes",
    scope=MetricScope.PROCESS,
    help="Resident memory size in bytes.",
)
PROCESS_VIRTUAL = Metric(
    name="process_virtual_memory_bytes",
    scope=MetricScope.PROCESS,
    help="Virtual memory size in bytes.",
)
PROCESS_START = Metric(
    name="process_start_time_seconds",
    scope=MetricScope.PROCESS,
    help="Start time of the process since unix epoch in seconds.",
)

METRICS: tuple[Metric, ...] = tuple(found for found in list(globals().values()) if isinstance(found, Metric))
