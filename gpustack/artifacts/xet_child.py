"""The child process that fetches one file with the hub's own Xet client, which cannot be cancelled otherwise.

Reads one JSON object from stdin (url, endpoint, headers, size, path), so that no secret is among its arguments. Exits
with 0 when the file is there, with ``PLAIN`` when the hub does not keep it in Xet.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

PLAIN = 3
_LIMIT = 1 << 20


def main() -> int:
    """Fetch the file that stdin describes; returns the exit code."""
    asked = json.loads(sys.stdin.read(_LIMIT))
    from huggingface_hub import get_hf_file_metadata
    from huggingface_hub.file_download import xet_get

    from gpustack.artifacts.hub_client import hub_session

    if importlib.util.find_spec("hf_xet") is None:
        return PLAIN
    hub_session()
    headers = dict(asked["headers"])
    found = get_hf_file_metadata(asked["url"], token=False, headers=headers, endpoint=asked["endpoint"])
    if found.xet_file_data is None or found.size != asked["size"]:
        return PLAIN
    xet_get(
        incomplete_path=Path(asked["path"]),
        xet_file_data=found.xet_file_data,
        headers=headers,
        expected_size=asked["size"],
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
