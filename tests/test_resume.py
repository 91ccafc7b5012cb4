"""A training that is cut off goes on as if it had never been, wherever it was cut."""

import signal
import sys
import time

import dying
import pytest

from ocensa_nb.runs import LAST, Run

needs_kill = pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL and forked processes")

DEATHS = 20
TRAININGS = {
    "fp32": {"precision": "fp32", "freeze_layers": 0},
    "bf16": {"precision": "bf16", "freeze_layers": 2, "batch_size": 8, "gradient_accumulation_steps": 2},
}


def steps(run):
    return [(line["step"], line["epoch"], line["loss"], line["lr"]) for line in run.history() if "step" in line]


@needs_kill
@pytest.mark.parametrize("kind", TRAININGS)
def test_killed_at_20_moments_a_training_ends_with_the_bits_of_one_that_was_not(kind, config, tmp_path):
    often = {"epochs": 3, "batch_size": 16, "class_weights": True, "checkpoint_minutes": 0.1 / 60}
    settings = config.replace(**(often | TRAININGS[kind]))
    whole = settings.replace(out=str(tmp_path / "whole"))
    started = time.perf_counter()
    assert dying.process(whole) == 0
    seconds = time.perf_counter() - started
    expected, lines = dying.content(tmp_path / "whole"), steps(Run.load(whole.out))
    assert len(lines) == 60

    for number, (moment, when) in enumerate(dying.deaths(7, DEATHS, seconds)):
        code, out = 0, tmp_path / "none"
        while code == 0:  # this one was over before it was to die: sooner, then
            out = tmp_path / f"{number}-{when:.3f}"
            code = dying.process(settings.replace(out=str(out)), moment, when)
            when *= 0.7
        assert code == -signal.SIGKILL, moment
        if number % 4 == 0:  # and once more, while it reads what the first death left
            code = dying.process(settings.replace(out=str(out)), "while a checkpoint is read")
        assert code == 0 or dying.process(settings.replace(out=str(out))) == 0, moment
        assert dying.content(out) == expected, moment
        assert steps(Run.load(out)) == lines, moment
        assert not (out / LAST).exists()
