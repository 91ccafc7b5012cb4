"""The folder of a case: the names of its files, and the states in its case.json, with their names in Spanish."""

from collections.abc import Mapping
from typing import Any

from ocensa_nb.files.atomic import is_running

CASES, STATE, RUN, EVALUATION, LOG = "cases", "case.json", "run", "evaluation", "log.txt"
PENDING, RUNNING, FINISHED, FAILED, INTERRUPTED = "pending", "running", "finished", "failed", "interrupted"
STATES = {
    PENDING: "pendiente",
    RUNNING: "en marcha",
    FINISHED: "terminado",
    FAILED: "fallido",
    INTERRUPTED: "interrumpido",
}


def status_of(content: Mapping[str, Any]) -> str:
    """Return the status in a case.json; `interrupted` if the process that was running the case has died."""
    found = content["status"]
    dead = found == RUNNING and is_running(str(content.get("process", ""))) is False
    return INTERRUPTED if dead else found


def counted(count: int, name: str) -> str:
    """Return a number with a noun or participle in the singular or plural; «en marcha» has no plural."""
    return f"{count} {name}" if count == 1 or name.startswith("en ") else f"{count} {name}s"
