"""Check the form of a grid: its keys, its lists and the names of its fields."""

import dataclasses
import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

from ocensa_nb.config import TrainConfig
from ocensa_nb.errors import UserError, clipped, unknown

KEYS = ("base", "grid", "cases", "seeds")
FIELDS = tuple(f.name for f in dataclasses.fields(TrainConfig))
SET_HERE = ("out", "resume")  # by the runner
EVALUATION = {"predict_with": "auto", "evaluation_data": ""}  # fields of notebook 04, and their defaults


def mapping_or_list(content: Mapping[str, Any], key: str) -> Any:
    """Return the value of a key of the file; raises `UserError` if it is not the mapping or the list it must be."""
    value = content[key]
    if key in ("base", "grid"):
        if not isinstance(value, Mapping):
            raise UserError(f"{key} = {clipped(repr(value))}: se espera «campo: valor», uno por línea.")
        return dict(value)
    check_list(key, value)
    return list(value)


def check_list(where: str, values: Any) -> None:
    """Raise `UserError` if a value is not a list, is empty, or repeats an element."""
    if not isinstance(values, list | tuple):
        raise UserError(f"{where} = {clipped(repr(values))}: se espera una lista, p. ej. [1, 2].")
    if not values:
        raise UserError(f"{where}: la lista está vacía. Ponga un valor o quite la línea.")
    seen = Counter(json.dumps(value, sort_keys=True, default=str) for value in values)
    if repeated := next((value for value, count in seen.items() if count > 1), None):
        raise UserError(f"{where}: {clipped(repeated)} está dos veces.")


def check_field(where: str, name: Any, elsewhere: tuple[str, ...] = ()) -> None:
    """Raise `UserError` if a name is not a field of a case, or has its place elsewhere in the file."""
    if name in elsewhere:
        raise UserError(f"{where}: {name} va en seeds, una lista en el primer nivel del archivo.")
    if name in SET_HERE:
        raise UserError(f"{where}: {name} no se puede fijar; cada caso tiene su carpeta, y se continúa solo.")
    known = [name for name in ("recipe", *FIELDS, *EVALUATION) if name not in SET_HERE]
    if name not in known:
        raise UserError(unknown(f"{where}: el campo", name, known))
