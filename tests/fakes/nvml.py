"""NVIDIA cards that are not there: `nvml.c` built once, and the text file that tells it what to say."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.needs import requires

GIB = 2**30
H200: Mapping[str, object] = {
    "state": "ok",
    "name": "NVIDIA H200",
    "uuid": "GPU-00000000-0000-0000-0000-000000000000",
    "total": 143771 * 2**20,
    "used": 2**20,
    "util": 0,
    "memutil": 0,
    "temp": 30,
    "power": 75000,  # milliwatts
    "limit": 700000,
    "cores": 16896,
    "cc": "9.0",
    "mig": 0,
    "bus": "00000000:1B:00.0",
}
# memory shared with the host: its driver answers "not supported" for sizes and limits
GB10: Mapping[str, object] = {
    "state": "ok",
    "name": "NVIDIA GB10",
    "uuid": "GPU-00000000-0000-0000-0000-000000000010",
    "util": 0,
    "temp": 38,
    "power": 4720,
    "cc": "12.1",
    "bus": "0000000F:01:00.0",
}


def cards(count: int, model: Mapping[str, object] = H200, **changes: object) -> list[dict[str, object]]:
    """``count`` cards of a model, each with its own uuid and bus address."""
    uuid = str(model["uuid"])[:-4]
    return [
        {**model, "uuid": f"{uuid}{n:04d}", "bus": f"00000000:{0x1B + n:02X}:00.0", **changes}
        for n in range(count)
    ]


def instances(card: int, *slots: int, profile: str = "1g.18gb") -> list[dict[str, object]]:
    """MIG instances of the card with this index, as lines after the cards."""
    return [
        {
            "of": card,
            "slot": slot,
            "state": "ok",
            "name": f"NVIDIA H200 MIG {profile}",
            "uuid": f"MIG-00000000-0000-0000-0000-{card:06d}{slot:06d}",
            "total": 16384 * 2**20,
            "used": 12 * 2**20,
        }
        for slot in slots
    ]


@dataclass(frozen=True)
class FakeNvml:
    """What a child process must be given to see our cards; `tell` changes them, also while it runs."""

    library: Path
    script: Path

    @property
    def env(self) -> dict[str, str]:
        return {"LD_LIBRARY_PATH": str(self.library.parent), "FAKE_NVML": str(self.script)}

    def tell(self, gpus: Sequence[Mapping[str, object]], *, library: str = "ok") -> None:
        """``library`` may be ok, not_loaded, hang or mismatch; a card's ``state`` ok, lost, locked or hang.

        A key left out of a card is a query that its driver does not support; one with the value ``!4`` fails with
        NVML's error 4.
        """
        about: dict[str, object] = {"library": library, "driver": "570.124.06", "cuda": 12080}
        lines = ["\t".join(f"{key}={value}" for key, value in words.items()) for words in (about, *gpus)]
        partial = self.script.with_suffix(".partial")
        partial.write_text("\n".join(lines) + "\n")
        partial.replace(self.script)


def build_nvml(folder: Path) -> Path:
    """Compile the library into ``folder``; skips the test where there is no compiler."""
    compiler = requires("gcc")
    library = folder / "libnvidia-ml.so.1"
    source = Path(__file__).with_name("nvml.c")
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-o", library, source],
        check=True,
        timeout=60,
    )
    return library
