"""Measure the overhead of the live view on training.

    python -m tests.benchmarks.live_view

Each round trains twice in a child process, in alternating order: without a panel, and with one that redraws its live
view every two seconds. The overhead is the difference of the recorded training times; the CPU time of the panel is
reported as a share of all cores.
"""

import tempfile
import time
from pathlib import Path

import numpy as np
import tyro

from ocensa_nb.config import TrainConfig, from_recipe
from ocensa_nb.data.notices import Notices
from ocensa_nb.notebook import train_panel as widgets
from ocensa_nb.notebook.process_panel import REDRAW_SECONDS
from ocensa_nb.notebook.train_panel import Training
from ocensa_nb.runs.run import Run
from ocensa_nb.runtime import machine
from ocensa_nb.training import train


def alone(config: TrainConfig, notices: Notices, folder: Path) -> tuple[float, float]:
    """Train without a panel; return the training time in seconds, and 0 as CPU share of the panel."""
    training = Training(config, "cpu", folder / "run-001")
    assert training._process.wait() == 0
    return Run.load(training.folder).metadata["seconds"]["training"], 0.0


def watched(config: TrainConfig, notices: Notices, folder: Path) -> tuple[float, float]:
    """Train from a panel that ticks as in a page; return its seconds and the CPU share of the panel."""
    panel = widgets.control_panel(config, notices, "cpu", folder, interactive=True)
    started, used = time.perf_counter(), time.process_time()
    panel.start.click()
    while panel.process.is_running:
        time.sleep(REDRAW_SECONDS)
        panel.clock.tick()
    share = (time.process_time() - used) / (time.perf_counter() - started) / machine.cores()
    panel.clock.tick()
    return panel.run().metadata["seconds"]["training"], share


def main(rounds: int = 5, epochs: int = 2) -> None:
    """Measure `rounds` pairs of trainings."""
    config = from_recipe("cpu", {"epochs": epochs})
    notices = train.load_notices(config)
    found, shares = [], []
    for number in range(rounds + 1):
        seconds, used = {}, 0.0
        for way in (alone, watched) if number % 2 else (watched, alone):
            with tempfile.TemporaryDirectory() as folder:
                seconds[way], share = way(config, notices, Path(folder))
            used = max(share, used)
        cost = seconds[watched] / seconds[alone] - 1
        if number:  # round 0 fills the cache of frozen features
            found.append(cost)
            shares.append(used)
        print(f"alone {seconds[alone]:.2f} s, watched {seconds[watched]:.2f} s: {cost:+.2%}, {used:.2%}", flush=True)
    low, middle, high = np.quantile(found, [0, 0.5, 1])
    print(
        f"costs {middle:+.2%} ({low:+.2%} to {high:+.2%}) in {rounds} rounds; the panel took {np.median(shares):.2%} "
        f"of the machine ({min(shares):.2%} to {max(shares):.2%})"
    )


if __name__ == "__main__":
    tyro.cli(main)
