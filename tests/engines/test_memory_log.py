"""What engines say in their logs of the memory that they take is read; what is not known says nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpustack.domain.memory_use import MAPPED, TermBytes
from gpustack.domain.unit import GIB, MIB
from gpustack.engines.memory_log import told_by_llama_cpp, told_by_sglang, told_by_vllm

# xllamacpp 2026.10.11549 with --log-verbosity 4, on a CPU
ON_CPU = """\
0.00.028.278 I common_memory_breakdown_print: |   - Host               |                   12 =     3 +       2 +       7                |
0.00.032.306 I print_info: file size   = 3.01 MiB (16.03 BPW)
0.00.033.845 I load_tensors:   CPU_Mapped model buffer size =     3.01 MiB
0.00.034.040 I llama_context: n_seq_max             = 2
0.00.034.040 I llama_context: n_ctx                 = 4096
0.00.034.041 I llama_context: n_ctx_seq             = 2048
0.00.034.058 I llama_context:        CPU  output buffer size =     0.00 MiB
0.00.034.132 I llama_kv_cache:        CPU KV buffer size =     2.00 MiB
0.00.035.638 I llama_kv_cache: size =    2.00 MiB (  2048 cells,   2 layers,  2/2 seqs), K (f16):    1.00 MiB, V (f16):    1.00 MiB
0.00.052.553 I sched_reserve:        CPU compute buffer size =     7.02 MiB
"""  # noqa: E501  # as it was written

# as llama.cpp writes them with a card, a second one on another machine, a sliding window, a state and a draft model
ON_DEVICES = """\
load_tensors:          CPU model buffer size =   100.50 MiB
load_tensors:        CUDA0 model buffer size =  4000.00 MiB
load_tensors:    CUDA_Host model buffer size =    10.00 MiB
load_tensors: RPC0[10.0.0.2:50052] model buffer size =  2000.00 MiB
llama_context: n_ctx                 = 4096
llama_context:  CUDA_Host  output buffer size =     1.00 MiB
llama_kv_cache:      CUDA0 KV buffer size =   100.00 MiB
llama_kv_cache:      CUDA0 KV buffer size =    50.00 MiB
llama_memory_recurrent:      CUDA0 RS buffer size =     6.00 MiB
sched_reserve:      CUDA0 compute buffer size =   300.00 MiB
sched_reserve:  CUDA_Host compute buffer size =    20.00 MiB
sched_reserve:      CUDA0 compute buffer size =   310.00 MiB
sched_reserve:      CUDA0 compute buffer size =   305.00 MiB
load_tensors:        CUDA0 model buffer size =   500.00 MiB
llama_context: n_ctx                 = 4096
sched_reserve:      CUDA0 compute buffer size =   100.00 MiB
"""


def test_the_buffers_of_llama_cpp_are_summed_by_what_they_are_for() -> None:
    mapped = int(3.01 * MIB)
    assert told_by_llama_cpp(ON_CPU.splitlines()) == {
        "host weights": mapped,
        MAPPED: mapped,
        "host cache": 2 * MIB,
        "host compute": int(7.02 * MIB),
    }


def test_what_is_on_devices_is_told_apart_and_what_is_reserved_anew_counts_once() -> None:
    assert told_by_llama_cpp(ON_DEVICES.splitlines()) == {
        "host weights": int(110.5 * MIB),
        MAPPED: 0,
        "devices weights": 6500 * MIB,
        "host compute": 21 * MIB,
        "devices cache": 156 * MIB,
        "devices compute": 410 * MIB,
    }


# lines of vLLM 0.11 and later (vllm/v1/worker/gpu_worker.py, gpu_model_runner.py), and of versions before
VLLM = """\
(EngineCore_DP0 pid=212) INFO 10-06 12:00:05 [gpu_model_runner.py:2450] Model loading took 15.2500 GiB memory and 2.1 seconds
(EngineCore_DP0 pid=212) INFO 10-06 12:00:31 [gpu_worker.py:298] Available KV cache memory: 1.50 GiB
(EngineCore_DP0 pid=212) INFO 10-06 12:00:31 [kv_cache_utils.py:1087] GPU KV cache size: 49,152 tokens
(EngineCore_DP0 pid=212) INFO 10-06 12:00:40 [gpu_model_runner.py:3480] Graph capturing finished in 8 secs, took 0.25 GiB
"""  # noqa: E501
OLDER_VLLM = """\
INFO 07-23 20:49:31 worker.py:241] model weights take 21.67GiB; non_torch_memory takes 0.36GiB; \
PyTorch activation peak memory takes 15.75GiB; the rest of the memory reserved for KV Cache is 3.09GiB.
INFO 07-23 20:49:31 gpu_worker.py:250] Initial free memory 79.0 GiB, reserved 20.5 GiB memory for KV Cache as specified by kv_cache_memory_bytes config
"""  # noqa: E501
# lines of SGLang (python/sglang/srt/model_executor), of two ranks
SGLANG = """\
[2026-08-17 16:52:10 TP0] Load weight end. elapsed=8.01 s, type=Qwen3, dtype=torch.bfloat16, avail mem=62.08 GB, mem usage=16.50 GB.
[2026-08-17 16:52:10 TP1] Load weight end. elapsed=8.01 s, type=Qwen3, dtype=torch.bfloat16, avail mem=62.08 GB, mem usage=16.50 GB.
[2026-08-17 16:52:12 TP0] KV Cache is allocated. #tokens: 371661, K size: 12.50 GB, V size: 12.25 GB
[2026-08-17 16:52:12 TP1] KV Cache is allocated. dtype: torch.bfloat16, #tokens: 1933682, KV size: 12.50 GB
[2026-08-17 16:52:12 TP1] Mamba Cache is allocated. max_mamba_cache_size: 614, conv_state size: 0.25GB, ssm_state size: 10.50GB
[2026-08-17 16:52:29 TP0] Capture cuda graph end. Time elapsed: 7.23 s. avail mem=0.53 GB. mem usage=0.75 GB.
[2026-08-17 16:52:29 TP1] Capture target decode CUDA graph end. elapsed=16.40 s, mem usage=0.50 GB. avail mem=8.16 GB.
"""  # noqa: E501


def gib(told: TermBytes) -> dict[str, float]:
    return {name.removeprefix("devices "): size / GIB for name, size in told.items()}


def test_vllm_and_sglang_are_read_of_each_process() -> None:
    assert gib(told_by_vllm(VLLM.splitlines(), on_devices=True)) == {
        "weights": 15.25,
        "cache": 1.5,
        "graphs": 0.25,
    }
    assert gib(told_by_vllm(OLDER_VLLM.splitlines(), on_devices=True)) == {"compute": 15.75, "cache": 20.5}
    assert gib(told_by_sglang(SGLANG.splitlines(), on_devices=True)) == {
        "weights": 33.0,
        "cache": 48.0,
        "graphs": 1.25,
    }
    assert told_by_vllm(VLLM.splitlines(), on_devices=False) == {}


@pytest.mark.parametrize(
    "line",
    [
        "load_tensors: CUDA0 model buffer size = 99999999999999999999999999.00 MiB",
        f"load_tensors: CUDA0 model buffer size = {'9' * 4000} GiB",
        "load_tensors: CUDA0 model buffer size = many MiB",
        "the user said: model buffer size",
    ],
)
def test_what_cannot_be_true_says_nothing(line: str) -> None:
    assert told_by_llama_cpp([line]) == {}


@given(
    st.lists(
        st.text() | st.sampled_from([*ON_DEVICES.splitlines(), *VLLM.splitlines(), *SGLANG.splitlines()])
    )
)
def test_whatever_is_in_a_log_the_figures_are_bytes(lines: list[str]) -> None:
    for told in (
        told_by_llama_cpp(lines),
        told_by_vllm(lines, on_devices=True),
        told_by_sglang(lines, on_devices=True),
    ):
        assert all(isinstance(size, int) and size >= 0 for size in told.values())
