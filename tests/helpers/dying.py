"""A training that dies by SIGKILL at a chosen moment, in a process of its own; used by `promises/test_resume.py`.

The processes are forked from one that has only imported what a training imports, so that each starts at once.
"""

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

from ocensa_nb.config import TrainConfig
from ocensa_nb.engine import step
from ocensa_nb.errors import UserError
from ocensa_nb.evaluation import inference
from ocensa_nb.files import atomic, temporary, tensors
from ocensa_nb.storage import checkpoint, checkpoint_files, manifest, run_folder
from ocensa_nb.training import train

# Where a training may die: the name of the moment, what is called there, and how many calls a whole training makes.
MOMENTS = {
    "before an optimiser's step": (step, "step_if_finite", 60),
    "in the middle of a checkpoint": (checkpoint_files, "as_bytes", 2000),
    "in the middle of a file of tensors": (tensors, "save_file", 1),
    "before a file is renamed": (atomic.os, "replace", 9),
    "in the middle of a line of the history": (run_folder.Run, "append_history", 8),
    "in validation": (inference, "predictions", 5),
    "while the model is saved": (train, "save_model", 1),
    "between the metrics and the manifest": (manifest, "compute", 1),
    "after the last file, before tidying up": (run_folder.Run, "tidy", 1),
}
SENTENCE = "sentence.txt"  # in the run folder, which a training resumes whatever else is in it
AGAIN = {"while a checkpoint is read": (checkpoint, "unflatten_state", 1)}  # in a second session alone


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_at(moment: str, call: int) -> None:
    """Die in the call of that number; one that writes first leaves half of what it would have written."""
    owner, name, _ = (MOMENTS | AGAIN)[moment]
    whole = getattr(owner, name)
    calls = 0

    def cut(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls < call:
            return whole(*args, **kwargs)
        if name == "save_file":
            whole(*args, **kwargs)
            os.truncate(args[1], os.path.getsize(args[1]) // 2)
        if name == "append_history":
            with open(args[0].path / run_folder.HISTORY, "a") as file:
                file.write('{"step": 1')
        if name == "save_model":
            whole(*args, **kwargs)
        return die()

    setattr(owner, name, cut)


def fill_the_disk_at(save: int) -> None:
    """Let no file grow over a few bytes from that checkpoint on: the nearest to a full disk that needs no rights."""
    import resource

    keep, saves = checkpoint.CheckpointManager.save, 0

    def full(self):
        nonlocal saves
        saves += 1
        if saves == save:
            resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
        keep(self)

    checkpoint.CheckpointManager.save = full


def training(config: TrainConfig, moment: str | None, when: float) -> None:
    """Train; die at a moment, `when` from 0 to 1 of its calls, or after so many seconds where it is "any"."""
    if moment == "any":
        threading.Timer(when, die).start()
    elif moment == "full disk":
        fill_the_disk_at(int(when))
    elif moment:
        die_at(moment, 1 + int(when * (MOMENTS | AGAIN)[moment][2]))
    try:
        train.fit(config)
    except UserError as error:
        Path(config.out, SENTENCE).write_text(str(error))
        os._exit(1)
    os._exit(0)  # the timer may still be waiting


def process(config: TrainConfig, moment: str | None = None, when: float = 0.0) -> int:
    """Return the exit code of a training in a process of its own: 0, or minus the signal it died by."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["ocensa_nb.training.train", "transformers.models.bert.modeling_bert", "sklearn.metrics"]
    )
    child = context.Process(target=training, args=(config, moment, when))
    child.start()
    child.join(300)
    return child.exitcode


def deaths(seed: int, count: int, seconds: float) -> list[tuple[str, float]]:
    """Return moments to die at: each of the named ones, and the rest at any time of a training of so many seconds."""
    draw = random.Random(seed)
    named = [(moment, draw.random()) for moment in MOMENTS]
    drawn = named + [("any", draw.uniform(0.2, 1.0) * seconds) for _ in range(count - len(named))]
    return draw.sample(drawn, count)


def abandoned(folder: Path) -> Path:
    """Make a temporary folder as a process that is dead now would have left it, and return it."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    machine, _ = temporary.owner().split("-")
    leftover = folder / f"{temporary.PREFIX}{machine}-{child.pid}-abcd1234"
    leftover.mkdir()
    return leftover


def content(run: Path) -> dict[str, bytes]:
    """Return what must be the same, bit for bit: all weights and all metrics."""
    files = [
        run / run_folder.HEADS,
        run / run_folder.METRICS,
        run / run_folder.LABELS,
        *sorted((run / run_folder.ENCODER).iterdir()),
    ]
    return {file.relative_to(run).as_posix(): file.read_bytes() for file in files}
