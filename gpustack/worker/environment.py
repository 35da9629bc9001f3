"""What an engine gets of the daemon's own environment: paths and drivers, never the daemon's secrets."""

from __future__ import annotations

from collections.abc import Mapping

_KEPT = frozenset(
    {
        "HOME",
        "LANG",
        "LD_LIBRARY_PATH",
        "LOGNAME",
        "PATH",
        "PYTHONPATH",
        "TMPDIR",
        "TZ",
        "USER",
        "VIRTUAL_ENV",
    }
)
_KEPT_PREFIXES = (
    "AMD_",
    "ASCEND",
    "CUDA",
    "GGML_",
    "GLOO_",
    "GOMP_",
    "HF_",
    "HIP",
    "HSA",
    "KMP_",
    "LC_",
    "LLAMA_",
    "MKL_",
    "MLU_",
    "MUSA_",
    "NCCL_",
    "NVIDIA",
    "OMP_",
    "ONEAPI_",
    "OPENBLAS_",
    "PYTORCH_",
    "ROCM",
    "ROCR_",
    "SSL_",
    "SYCL_",
    "TORCH_",
    "VLLM",
    "XDG_CACHE",
    "ZE_",
)
_SECRET = ("TOKEN", "SECRET", "PASSW", "API_KEY", "CREDENTIAL")


def inherited_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The part of ``environment`` that is passed on. What else an engine needs, its deployment's ``env`` says."""
    return {
        name: value
        for name, value in environment.items()
        if (name in _KEPT or name.startswith(_KEPT_PREFIXES)) and not any(word in name for word in _SECRET)
    }
