"""Which replica gets the next request."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence

from gpustack.domain.route import Endpoint


def pick(
    endpoints: Sequence[Endpoint],
    in_flight: Mapping[int, int],
    exclude: Collection[int],
    rng: random.Random,
) -> Endpoint | None:
    """The endpoint with fewest requests in flight, at random among equals; ``None`` if all are excluded.

    ``in_flight`` and ``exclude`` go by instance id.
    """
    best: list[Endpoint] = []
    least = -1
    for endpoint in endpoints:
        if endpoint.instance_id in exclude:
            continue
        load = in_flight.get(endpoint.instance_id, 0)
        if not best or load < least:
            best, least = [endpoint], load
        elif load == least:
            best.append(endpoint)
    if len(best) == 1:
        return best[0]
    return rng.choice(best) if best else None
