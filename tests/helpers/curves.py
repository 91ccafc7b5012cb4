"""Points as `quality_cost.quality` returns them."""

from collections.abc import Mapping
from typing import Any


def points(techniques: Mapping[str, tuple[float, list[list[float]]]]) -> list[dict[str, Any]]:
    """Return the points of techniques, each given by its seconds per epoch and the F1 of each seed and epoch."""
    return [
        {"name": title, "title": title, "seed": seed, "epoch": epoch, "seconds": seconds * epoch, "f1": f1}
        for title, (seconds, seeds) in techniques.items()
        for seed, curve in enumerate(seeds)
        for epoch, f1 in enumerate(curve, 1)
    ]
