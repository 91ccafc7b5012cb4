"""The run folder: what is on disk, written whole or not at all, and loaded back."""

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ocensa_nb.config import TrainConfig
from ocensa_nb.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from ocensa_nb.model import MultiHeadClassifier

CONFIG, LABELS, METRICS, HISTORY = "config.json", "labels.json", "metrics.json", "history.jsonl"
ENCODER, HEADS, GIF = "encoder", "heads.safetensors", "training.gif"
RUNS = Path("runs")
FORMAT = 1


@dataclass(frozen=True)
class Run:
    """A run folder. `facts` is its config.json: config, fingerprints, versions, hardware, seconds."""

    path: Path
    facts: dict[str, Any]
    classes: dict[str, list[str]]

    @classmethod
    def create(cls, config: TrainConfig, facts: Mapping[str, Any], classes: Mapping[str, list[str]]) -> "Run":
        """Make the run's folder and write what is known before training.

        An empty `config.out` takes the next free `runs/run-001`. Raises `UserError` where the folder cannot be
        written or holds anything already: a run is never written over.
        """
        path = new_folder(config.out)
        facts = {"format": FORMAT, "config": config.to_dict(), "fingerprint": config.fingerprint(), **facts}
        run = cls(path, facts, {head: list(names) for head, names in classes.items()})
        run.write_json(CONFIG, run.facts)
        run.write_json(LABELS, run.classes)
        return run

    @classmethod
    def load(cls, path: str | Path) -> "Run":
        """Open a finished run; raises `UserError` where there is none or it is damaged."""
        path = Path(path)
        if not path.is_dir():
            known = [str(run) for run in finished(path.parent)]
            near = f" En {path.parent} hay: {', '.join(known[-5:])}." if known else ""
            raise UserError(f"No existe la carpeta de corrida «{path}».{near} Entrene primero (cuaderno 03_train).")
        for name in (CONFIG, LABELS, METRICS, HEADS, ENCODER):
            if not (path / name).exists():
                raise UserError(
                    f"«{path}» no es una corrida terminada: le falta {name}. Vuelva a entrenar en otra carpeta."
                )
        facts, classes = read_json(path / CONFIG), read_json(path / LABELS)
        sound = isinstance(classes, dict) and all(
            isinstance(names, list) and len(names) > 1 and all(isinstance(n, str) for n in names)
            for names in classes.values()
        )
        if not (sound and isinstance(facts, dict) and isinstance(facts.get("config"), dict)):
            raise UserError(f"Los archivos {CONFIG} y {LABELS} de «{path}» están dañados. Vuelva a entrenar.")
        return cls(path, facts, classes)

    @property
    def config(self) -> TrainConfig:
        """The config the run was trained with; raises `UserError` where it cannot be one."""
        values = dict(self.facts["config"])
        try:
            values["text_fields"] = tuple(values["text_fields"])
            return TrainConfig().replace(**values).validate()
        except (KeyError, TypeError) as error:
            raise UserError(f"La configuración guardada en «{self.path}» está dañada: {error}.") from error

    @property
    def metrics(self) -> dict[str, Any]:
        """Validation and test metrics of the restored best epoch."""
        return read_json(self.path / METRICS)

    def history(self) -> list[dict[str, Any]]:
        """Return every line of the history; a last line cut short by a crash is left out."""
        lines = []
        if (self.path / HISTORY).exists():
            for line in (self.path / HISTORY).read_text(encoding="utf-8").splitlines():
                try:
                    lines.append(json.loads(line))
                except json.JSONDecodeError:
                    break
        return lines

    def append_history(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Add lines to the history; it only grows, so an interrupted run keeps all it had."""
        with open(self.path / HISTORY, "a", encoding="utf-8") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)

    def write_json(self, name: str, value: Any) -> None:
        """Write a JSON file of the run, atomically."""
        write_text(self.path / name, json.dumps(value, ensure_ascii=False, indent=2) + "\n")

    def save_model(self, model: "MultiHeadClassifier", tokenizer: "PreTrainedTokenizerBase") -> None:
        """Write the encoder as any Hugging Face tool reads it, and the shared layer with the heads beside it."""
        from safetensors.torch import save_file

        from ocensa_nb.encoders import quiet

        fresh = self.path / f"{ENCODER}.tmp"
        shutil.rmtree(fresh, ignore_errors=True)
        with quiet():
            model.encoder.save_pretrained(fresh)
        tokenizer.save_pretrained(fresh)
        os.replace(fresh, self.path / ENCODER)
        own = {k: v.contiguous().cpu() for k, v in model.state_dict().items() if not k.startswith("encoder.")}
        save_file(own, self.path / f"{HEADS}.tmp")
        os.replace(self.path / f"{HEADS}.tmp", self.path / HEADS)

    def load_model(self) -> tuple["MultiHeadClassifier", "PreTrainedTokenizerBase"]:
        """Return the trained classifier, in eval mode on the CPU, and its tokenizer."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        from ocensa_nb.encoders import load_encoder, load_tokenizer
        from ocensa_nb.model import MultiHeadClassifier

        source = str(self.path / ENCODER)
        tokenizer = load_tokenizer(source)
        sizes = {head: len(names) for head, names in self.classes.items()}
        model = MultiHeadClassifier(load_encoder(source, tokenizer), sizes, self.config.dropout)
        try:
            missing, unexpected = model.load_state_dict(load_file(self.path / HEADS), strict=False)
        except (SafetensorError, OSError, RuntimeError) as error:
            raise UserError(
                f"Los pesos de «{self.path / HEADS}» no se pueden leer: {error}. Vuelva a entrenar."
            ) from error
        if unexpected or any(not name.startswith("encoder.") for name in missing):
            raise UserError(f"Los pesos de «{self.path / HEADS}» no son los de esta corrida. Vuelva a entrenar.")
        return model.eval(), tokenizer


def new_folder(out: str | Path) -> Path:
    """Make and return an empty folder for results; an empty `out` takes the next free `runs/run-001`.

    Raises `UserError` where it cannot be written or is not empty.
    """
    try:
        if str(out):
            path = Path(out)
            path.mkdir(parents=True, exist_ok=True)
        else:
            path = next_folder(RUNS)
            path.mkdir(parents=True)
        if any(path.iterdir()):
            what = "ya contiene otra corrida" if (path / CONFIG).exists() else "no está vacía"
            raise UserError(f"La carpeta «{path}» {what}, y no se sobrescribe nada. Elija otro nombre en out.")
        probe = path / ".tmp"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(
            f"No se puede escribir en «{out}»: {error.strerror}. Elija en out una carpeta donde pueda."
        ) from error
    return path


def next_folder(root: str | Path) -> Path:
    """Return the first of `root/run-001`, `run-002`, … that is not there yet."""
    number = 1
    while (Path(root) / f"run-{number:03d}").exists():
        number += 1
    return Path(root) / f"run-{number:03d}"


def finished(root: str | Path = RUNS) -> list[Path]:
    """Return the finished runs of a folder, oldest first."""
    runs = [file.parent for file in Path(root).glob(f"*/{METRICS}") if (file.parent / HEADS).exists()]
    return sorted(runs, key=lambda run: (run / METRICS).stat().st_mtime)


def latest(root: str | Path = RUNS) -> Path:
    """Return the newest finished run; raises `UserError` where there is none yet."""
    runs = finished(root)
    if not runs:
        raise UserError(
            f"Todavía no hay ninguna corrida terminada en «{root}». Entrene primero con el cuaderno 03_train."
        )
    return runs[-1]


def read_json(path: Path) -> Any:
    """Return the content of a JSON file; raises `UserError` where it is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"El archivo «{path}» falta o está dañado. Vuelva a entrenar o recupere una copia.") from error


def write_text(path: Path, text: str) -> None:
    """Write a text file under a temporary name and rename it, so that a reader never sees half of it."""
    fresh = path.with_name(f"{path.name}.tmp")
    fresh.write_text(text, encoding="utf-8")
    os.replace(fresh, path)
