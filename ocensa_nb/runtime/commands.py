"""Convert a config to the equivalent command line and papermill command."""

import json
import shlex
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import yaml

from ocensa_nb.config import TrainConfig, with_recipe
from ocensa_nb.errors import UserError
from ocensa_nb.runtime.machine import chosen_recipe, configure

# Fields with their own parameter in notebook 03; the others go into its `more_settings`.
PARAMETERS = ("model", "data", "out", "epochs", "seed", "resume")
UNATTENDED = {"upload": False, "mount_drive": False}  # parameters of a notebook that nobody attends


def changes(config: TrainConfig, recipe: str) -> dict[str, Any]:
    """Return the fields of a config that differ from its recipe, as JSON-serializable values."""
    theirs = configure(recipe).to_dict()
    return {name: value for name, value in config.to_dict().items() if value != theirs[name]}


def arguments(config: TrainConfig, recipe: str) -> list[str]:
    words = ["train", "--recipe", recipe]
    for name, value in changes(config, recipe).items():
        if isinstance(value, dict):
            value = [word for pair in value.items() for word in pair]
        words += ["--" + name.replace("_", "-"), *map(str, value if isinstance(value, list) else [value])]
    return words


def as_text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True) if isinstance(value, dict | list) else str(value)


def command_line(config: TrainConfig, recipe: str) -> str:
    return _join(["python", "-m", "ocensa_nb", *arguments(config, recipe)])


def command_with_field(config: TrainConfig, field: str) -> str:
    """Return the command that trains on the same notices with one column more."""
    task = config.replace(fields=(*config.fields, field), monitor="f1", out="")
    return command_line(with_recipe(task, chosen_recipe("auto")), "auto")


def training_parameters(config: TrainConfig, recipe: str) -> dict[str, Any]:
    """Return every parameter of notebook 03, so that the values saved in its form do not matter."""
    more = {name: value for name, value in changes(config, recipe).items() if name not in PARAMETERS}
    return {
        "recipe": recipe,
        **{name: value for name, value in config.to_dict().items() if name in PARAMETERS},
        "more_settings": json.dumps(more, ensure_ascii=False) if more else "",
        **UNATTENDED,
        "interactive": False,
    }


def evaluation_parameters(run: str, out: str, data: str = "", predict_with: str = "auto") -> dict[str, Any]:
    return {
        "run": run,
        "out": out,
        "data": data,
        "predict_with": predict_with,
        "new_notices": "",
        "notice": "",
        "upload_labelled": False,
        **UNATTENDED,
    }


def papermill_line(config: TrainConfig, recipe: str) -> str:
    parameters = training_parameters(config, recipe)
    # Not JSON: PyYAML reads its 5e-05 as a string.
    written = yaml.safe_dump(parameters, default_flow_style=True, allow_unicode=True, width=float("inf"))
    return _join(["papermill", "notebooks/03_train.ipynb", "03_ejecutado.ipynb", "-y", written.strip()])


def _join(words: list[str]) -> str:
    return subprocess.list2cmdline(words) if sys.platform == "win32" else shlex.join(words)


def parse_settings(given: str | Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the settings, not validated, of a JSON object or of a mapping, as `papermill -y` gives it.

    Raises `UserError` if it is neither.
    """
    try:
        settings = given if isinstance(given, Mapping) else json.loads(given or "{}")
    except (TypeError, ValueError):
        settings = None
    if not isinstance(settings, Mapping):
        raise UserError(
            f"more_settings = {given!r}: se espera un objeto JSON, p. ej. "
            """'{"columns": {"causa": "Mi columna"}}', con comillas dobles dentro."""
        )
    return settings
