"""Compare two processes of one thread with one process of two threads: training, predicting, and the cached features.

python -m tests.benchmarks.processes --rounds 3
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import tyro

from ocensa_nb.data import synthetic

SIDES = {"1 process x 2 threads": 1, "2 processes x 1 thread": 2}


def main(rounds: int = 3, rows: int = 2000, model: str = "minilm", freeze_layers: int = 4, epochs: int = 2) -> None:
    """Train and predict in turns, in real processes; print medians, extremes and the ratio within each round."""
    measured: dict[str, dict[str, list[float]]] = {side: {} for side in SIDES}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        synthetic.write_csv(synthetic.generate(rows, 5), folder / "avisos.csv")
        for number in range(rounds):
            for side, processes in SIDES.items():
                out = folder / f"{number}-{processes}"
                found = _round(folder, out, processes, model, freeze_layers, epochs, rows)
                for what, value in found.items():
                    measured[side].setdefault(what, []).append(value)
    one, two = measured.values()
    print(f"\n{model}, {freeze_layers} layers frozen, {rows:,} rows, {rounds} rounds; median (lowest to highest)")
    for what in one:
        ratios = [b / a for a, b in zip(one[what], two[what], strict=True)]
        print(f"{what}: {_spread(one[what])} | {_spread(two[what])} | ratio {_spread(ratios)}")


def _round(
    folder: Path, out: Path, processes: int, model: str, freeze_layers: int, epochs: int, rows: int
) -> dict[str, float]:
    """Return rows per second of one side: steps of training, frozen layers, and prediction with its start."""
    environment = {**os.environ, "HOME": str(out) + "-home", "OMP_NUM_THREADS": str(2 // processes)}
    together = ["--processes", str(processes)] if processes > 1 else []

    def ocensa(*words: str) -> float:
        started = time.perf_counter()
        command = [sys.executable, "-m", "ocensa_nb", *words, *together]
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
        return time.perf_counter() - started

    data = str(folder / "avisos.csv")
    ocensa(
        *("train", "--recipe", "cpu", "--model", model, "--freeze-layers", str(freeze_layers), "--precision", "bf16"),
        *("--epochs", str(epochs), "--data", data, "--out", str(out)),
    )
    lines = [json.loads(line) for line in (out / "history.jsonl").read_text(encoding="utf-8").splitlines()]
    steps = [line["rows_per_second"] for line in lines if "step" in line]
    metadata = json.loads((out / "config.json").read_text(encoding="utf-8"))
    seconds = ocensa("predict", "--run", str(out), "--data", data, "--out", str(out) + ".csv", "--with", "encoder")
    return {
        "training, rows/s": float(np.median(steps)),
        "frozen layers, rows/s": rows / metadata["seconds"]["features"],
        "predict with its start, rows/s": rows / seconds,
    }


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    tyro.cli(main)
