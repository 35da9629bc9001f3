"""One figure of a benchmark: its value beside what is promised."""

from __future__ import annotations

import json

import attrs


@attrs.frozen
class Figure:
    """``value`` is ``None`` where it took too long to measure; ``target`` where nothing is promised."""

    figure: str
    value: float | None
    target: float | None
    unit: str
    better: str = "lower"

    def show(self, *, as_json: bool) -> None:
        """Print it: as a line for people, or as a JSON object."""
        if as_json:
            print(json.dumps(attrs.asdict(self)), flush=True)
            return
        value = "-" if self.value is None else f"{self.value:.2f}"
        promised = "" if self.target is None else f"  (promised: {self.target:g})"
        print(f"{self.figure:62} {value:>10} {self.unit}{promised}", flush=True)
