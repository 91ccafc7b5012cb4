"""Run the training command in a separate process (`notebook/process_panel.py`), and report how it ended."""

import signal
from pathlib import Path

from ocensa_nb.config import TrainConfig
from ocensa_nb.errors import AskedToStopError, UserError
from ocensa_nb.notebook.process_panel import ChildProcess
from ocensa_nb.paths import RUNS
from ocensa_nb.runs import resume
from ocensa_nb.runs.run import LAST, Run
from ocensa_nb.runtime import machine
from ocensa_nb.runtime.commands import arguments

_started: list["Training"] = []  # lets a new panel follow a training that an earlier one started


class Training(ChildProcess):
    """A training in a background process, started on construction; with several GPUs, in one process per GPU."""

    def __init__(self, config: TrainConfig, recipe: str, folder: Path) -> None:
        self.config, self.recipe, self.folder = config, recipe, folder
        self.processes = machine.processes()
        together = ["--processes", str(self.processes)] if self.processes > 1 else []
        super().__init__([*arguments(config.replace(out=str(folder)), recipe), *together])
        _started.append(self)

    def is_finished(self, data_fingerprint: str) -> bool:
        """Return whether its folder has the finished run of its config and of the data with this fingerprint."""
        return resume.find_finished(self.config.replace(out=str(self.folder)), data_fingerprint) is not None


def running() -> Training | None:
    """Return the running training started from this process; None if there is none."""
    return next((training for training in _started if training.is_running), None)


def outcome(training: Training, data_fingerprint: str, root: Path = RUNS) -> Run:
    """Return the finished run of a training that has ended."""
    if training.was_refused:
        raise UserError(training.last_words())
    if training.is_finished(data_fingerprint):  # whatever the exit code: a stop may arrive when the run is complete
        return Run.load(training.folder)
    if training.was_asked_to_stop:
        message = "Detenido antes del primer paso."
        if (training.folder / LAST).exists():
            message = f"Detenido. El avance quedó guardado en «{short(training.folder)}»."
        if resume.will_resume(training.config, data_fingerprint, root):
            message += " Para continuar, pulse Continuar en el panel o ejecute otra vez run = panel.run()."
        raise AskedToStopError(message, signal.SIGTERM)
    if training.exit_code:
        raise UserError(
            f"El entrenamiento terminó de forma inesperada (código {training.exit_code}); suele ser "
            "falta de memoria. Use un batch menor o congele más capas, y entrene otra vez: continúa desde lo último "
            "que guardó."
        )
    return Run.load(training.folder)


def success(run: Run) -> str:
    """Return a Spanish sentence with the folder, best epoch and test F1 of a run."""
    scores = ", ".join(f"{head} {run.metrics['test'][f'{head}_f1']:.3f}" for head in run.classes)
    best, made = run.metrics["best_epoch"], run.metrics["epochs"]
    return f"✅ Listo, en «{short(run.path)}». Mejor época: {best} de {made}. F1 de prueba: {scores}."


def failure(error: UserError) -> str:
    """Return the message of an error, marked as an error unless the user requested the stop."""
    return str(error) if isinstance(error, AskedToStopError) else f"⛔ {error}"


def short(path: Path) -> Path:
    """Return a path relative to the working directory if it is inside it, otherwise unchanged."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
