"""The names of the builds in a release of llama.cpp, and which of them fit a machine."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

import attrs

from gpustack.errors import Invalid

SITE = "https://github.com"
"""Where releases are published."""

LISTING = "https://api.github.com"
"""The API that lists names and hashes of published files; mirrors do not have it."""

REPOSITORY = "ggml-org/llama.cpp"
PROGRAM = "llama-server"
TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)

_SYSTEMS = {"linux": "ubuntu", "darwin": "macos", "macos": "macos"}
_ARCHES = {"x86_64": "x64", "amd64": "x64", "x64": "x64", "aarch64": "arm64", "arm64": "arm64"}
_BACKENDS = {
    "cpu": ("",),
    "mps": ("",),
    "metal": ("",),
    "cuda": ("cuda",),
    "rocm": ("rocm",),
    "hip": ("rocm",),
    "vulkan": ("vulkan",),
    "xpu": ("sycl-fp16", "sycl-fp32", "sycl", "vulkan"),
    "sycl": ("sycl-fp16", "sycl-fp32", "sycl"),
    "openvino": ("openvino",),
}
_KNOWN_VERSIONS = {"cuda": ("13.4", "12.8"), "rocm": ("10.0",)}
"""Versions that are tried, the newest first, where the names of the files cannot be listed."""

_DRIVERS = ((12, 525), (13, 580))
"""Major version of CUDA, and the first driver that runs it."""

_DEVICE = re.compile(r"([a-z]+)(?:-([0-9][0-9.]*))?")


@attrs.frozen(kw_only=True)
class Platform:
    """What the tools are to run on, in the words of releases (``ubuntu``, ``x64``); a device such as ``cuda-12.8``.

    ``newest`` is the major version of the newest CUDA that the driver runs, where known.
    """

    system: str
    arch: str
    device: str = "cpu"
    newest: int | None = None

    @classmethod
    def of(cls, system: str, arch: str, device: str = "cpu", newest: int | None = None) -> Platform:
        """From the words of Python's ``platform``, or of a user; raises Invalid for unknown ones."""
        if system.lower() not in _SYSTEMS:
            raise Invalid(f"There are no tools for the system {system!r}: --system takes linux or darwin")
        if arch.lower() not in _ARCHES:
            raise Invalid(f"There are no tools for the architecture {arch!r}: --arch takes amd64 or arm64")
        found = _DEVICE.fullmatch(device.lower())
        if found is None or found[1] not in _BACKENDS:
            names = ", ".join(_BACKENDS)
            raise Invalid(
                f"There are no tools for the device {device!r}: --device takes one of {names}, or cuda-12.8"
            )
        return cls(
            system=_SYSTEMS[system.lower()], arch=_ARCHES[arch.lower()], device=device.lower(), newest=newest
        )

    @property
    def readable(self) -> str:
        return f"{self.system}, {self.arch}, {self.device}"

    def suits(self, version: str) -> bool:
        """Whether the driver runs this version of the toolkit (CUDA, ROCm)."""
        return (
            self.newest is None or not self.device.startswith("cuda") or _numbers(version)[0] <= self.newest
        )


def candidates(tag: str, platform: Platform, *, static: bool, names: Collection[str] | None) -> Iterator[str]:
    """Names of builds for ``platform``, the best first; limited to ``names`` where those are known."""
    found = _DEVICE.fullmatch(platform.device)
    assert found is not None  # a platform is made by ``of``
    link = "static-" if static else ""
    for backend in _BACKENDS[found[1]]:
        for version in _versions(tag, platform, backend, found[2], link, names):
            word = "-".join(part for part in (backend, version) if part)
            name = (
                f"llama-{tag}-bin-{platform.system}-{word + '-' if word else ''}{link}{platform.arch}.tar.gz"
            )
            if names is None or name in names:
                yield name


def runtime_of(name: str) -> str | None:
    """The archive of CUDA libraries to unpack beside a build; ``None`` for a build without CUDA."""
    return f"cudart-{name}" if "-cuda-" in name else None


def is_static(name: str) -> bool:
    """Whether a build is one statically linked program."""
    return "-static-" in name


def _versions(
    tag: str, platform: Platform, backend: str, asked: str | None, link: str, names: Collection[str] | None
) -> list[str]:
    """The toolkit versions that a backend is built for, the newest first; ``[""]`` for one without versions."""
    if asked is not None:
        return [asked]
    if backend not in _KNOWN_VERSIONS:
        return [""]
    if names is None:
        found = list(_KNOWN_VERSIONS[backend])
    else:
        built = re.compile(
            rf"llama-{re.escape(tag)}-bin-{platform.system}-{backend}-([0-9.]+)-{link}{platform.arch}\.tar\.gz"
        )
        found = [match[1] for name in names if (match := built.fullmatch(name))]
    return sorted(filter(platform.suits, found), key=_numbers, reverse=True)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part) or (0,)


def newest_cuda(driver: str | None, told: str | None) -> int | None:
    """The major version of the newest CUDA that a driver of NVIDIA runs; ``told`` (CUDA_VERSION) overrides it.

    Within a major version, newer toolkits run on older drivers (NVIDIA: minor version compatibility).
    """
    for text, least in ((told, ()), (driver, _DRIVERS)):
        first = (text or "").split(".")[0]
        if first.isascii() and first.isdigit() and len(first) < 6:
            return (
                int(first)
                if not least
                else max((cuda for cuda, start in least if int(first) >= start), default=11)
            )
    return None
