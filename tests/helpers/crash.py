"""Train in a child process that kills itself with SIGKILL at a chosen point."""

import itertools
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
from ocensa_nb.files import atomic, tensors
from ocensa_nb.runs import checkpoint, manifest
from ocensa_nb.runs import run as run_folder
from ocensa_nb.training import quality, train
from tests.helpers import forked

# Points at which to crash: the patched function, and how often a full training calls it.
POINTS = {
    "before an optimiser step": (step, "step_if_finite", 60),
    "while a checkpoint is written": (checkpoint, "as_bytes", 2000),
    "while a tensor file is written": (tensors, "save_file", 1),
    "before a file is renamed": (atomic.os, "replace", 9),
    "while a history line is written": (run_folder.Run, "append_history", 8),
    "during validation": (quality, "confusion_counts", 3),
    "while the model is saved": (quality, "save_model", 1),
    "between metrics and manifest": (manifest, "compute", 1),
    "after the last file, before cleanup": (run_folder.Run, "tidy", 1),
}
LONG = bool(os.environ.get("OCENSA_LONG"))
OPERATIONS = ("fsync", "link", "mkdir", "rename", "replace", "rmdir", "truncate", "unlink")
MESSAGE_FILE = "message.txt"  # in the run folder; other files there do not prevent a resume
RESUME_POINTS = {"while a checkpoint is read": (checkpoint, "unflatten_state", 1)}  # only when resuming


def kill_self() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def kill_at(point: str, call: int) -> None:
    """Patch the function of a point so that its n-th call kills the process; a write is left half done."""
    owner, name, _ = (POINTS | RESUME_POINTS)[point]
    original = getattr(owner, name)
    calls = 0

    def crashing(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls < call:
            return original(*args, **kwargs)
        if name == "save_file":
            original(*args, **kwargs)
            os.truncate(args[1], os.path.getsize(args[1]) // 2)
        if name == "append_history":
            with open(args[0].path / run_folder.HISTORY, "a") as file:
                file.write('{"step": 1')
        if name == "save_model":
            original(*args, **kwargs)
        return kill_self()

    setattr(owner, name, crashing)


def limit_file_size_at(save: int) -> None:
    """Limit the size of files from the n-th checkpoint on; like a full disk, but without root privileges."""
    import resource

    save_original, saves = checkpoint.CheckpointManager.save, 0

    def save_limited(self):
        nonlocal saves
        saves += 1
        if saves == save:
            resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
        save_original(self)

    checkpoint.CheckpointManager.save = save_limited


def train_and_crash(config: TrainConfig, point: str | None, when: float) -> None:
    """Train and crash at a point.

    when: for "any", seconds; for "full disk", the number of the checkpoint; else the share of calls, 0 to 1.
    """
    if point == "any":
        threading.Timer(when, kill_self).start()
    elif point == "full disk":
        limit_file_size_at(int(when))
    elif point:
        kill_at(point, 1 + int(when * (POINTS | RESUME_POINTS)[point][2]))
    try:
        train.fit(config)
    except UserError as error:
        Path(config.out, MESSAGE_FILE).write_text(str(error))
        os._exit(1)
    os._exit(0)  # do not wait for the timer


def train_in_process(config: TrainConfig, point: str | None = None, when: float = 0.0) -> int:
    """Train in a child process; return its exit code, negative if it was killed by a signal."""
    child = forked.context().Process(target=train_and_crash, args=(config, point, when))
    child.start()
    child.join(300)
    return child.exitcode


def crash_points(seed: int, count: int, seconds: float) -> list[tuple[str, float]]:
    """Return `count` crash points in random order: every named one, the rest at random times of the training."""
    draw = random.Random(seed)
    named = [(point, draw.random()) for point in POINTS]
    drawn = named + [("any", draw.uniform(0.2, 1.0) * seconds) for _ in range(count - len(named))]
    return draw.sample(drawn, count)


def make_abandoned_folder(folder: Path) -> Path:
    """Create a temporary folder whose owner is a dead process; return it."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    machine, _ = atomic.owner().split("-")
    leftover = folder / f"{atomic.PREFIX}{machine}-{child.pid}-abcd1234"
    leftover.mkdir()
    return leftover


def run_content(run: Path) -> dict[str, bytes]:
    """Return the content of the files that must be bit-identical: weights, labels, metrics and the simple model."""
    files = [
        run / manifest.HEADS,
        run / run_folder.METRICS,
        run / run_folder.LABELS,
        *sorted((run / manifest.ENCODER).iterdir()),
        *sorted((run / manifest.LINEAR).iterdir()),
    ]
    return {file.relative_to(run).as_posix(): file.read_bytes() for file in files}


def kill_before(operation, work, arguments):
    """Call `work`; kill the process with SIGKILL before the n-th file operation."""
    count = 0

    def counted(whole):
        def operate(*args, **kwargs):
            nonlocal count
            if count == operation:
                os.kill(os.getpid(), signal.SIGKILL)
            count += 1
            return whole(*args, **kwargs)

        return operate

    for name in OPERATIONS:
        setattr(os, name, counted(getattr(os, name)))
    work(*arguments)
    os._exit(0)


def is_killed(operation, work, *arguments):
    """Return whether a child process that calls `work` reached the n-th file operation and was killed there."""
    child = forked.context().Process(target=kill_before, args=(operation, work, arguments))
    child.start()
    child.join(120)
    assert child.exitcode in (0, -signal.SIGKILL)
    return child.exitcode != 0


def sampled_operations(operations):
    """Yield indices of file operations: all if `OCENSA_LONG` is set, until the caller stops, else three."""
    yield from itertools.count() if LONG else range(0, operations, -(-operations // 3))


def leftovers(folder):
    return [path.name for path in folder.iterdir() if atomic.is_temporary(path.name)]
