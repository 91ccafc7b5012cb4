"""Read a GRID.yaml safely and strictly: what YAML 1.1 would silently take for something else is an error.

`yes` and `no` are text, not booleans; a repeated key is an error, not a replacement; and `check_scalar` reports a
number that PyYAML reads as text, such as `2e-4`.
"""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ocensa_nb.config import TrainConfig
from ocensa_nb.errors import UserError, clipped
from ocensa_nb.files.verify import read_regular
from ocensa_nb.paths import plain_path, reason

LARGEST_GRID = 2**20  # bytes
FILES = ("model", "data", "corrections", "evaluation_data")  # fields that are, or may be, a path
_DEFAULTS = {f.name: f.default for f in dataclasses.fields(TrainConfig)}
_NUMBERS = tuple(name for name, value in _DEFAULTS.items() if type(value) in (int, float))
_SWITCHES = tuple(name for name, value in _DEFAULTS.items() if isinstance(value, bool))


def read_grid_file(path: str | Path) -> dict[str, Any]:
    """Return the mapping in a YAML file."""
    file = plain_path(path)
    try:
        text = read_regular(file, LARGEST_GRID).decode("utf-8-sig")
        content = yaml.load(text, _StrictLoader)  # a subclass of SafeLoader
    except OSError as error:
        raise UserError(f"No se puede leer la cuadrícula «{file}»: {reason(error)}.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"La cuadrícula «{file}» no es texto en UTF-8. Guárdela con esa codificación.") from error
    except yaml.YAMLError as error:
        raise UserError(f"La cuadrícula «{file}» no es YAML válido{_place(error, text)}") from error
    except RecursionError as error:
        raise UserError(f"La cuadrícula «{file}» tiene demasiados niveles, unos dentro de otros.") from error
    if not isinstance(content, Mapping):
        raise UserError(f"La cuadrícula «{file}» debe tener las claves base, grid, cases y seeds; las que necesite.")
    return dict(content)


def check_scalar(field: str, value: Any) -> None:
    """Raise `UserError` for an empty value, and for text in a field of numbers or of true and false."""
    if value is None:
        raise UserError(f"{field} no tiene valor. Escríbalo, o quite la línea para usar el de la receta.")
    if field in _NUMBERS and isinstance(value, str):
        try:
            number = float(value.replace("_", ""))
        except ValueError:
            number = None
        how = f" En YAML ese número se lee como texto: escriba {_plain(number)}." if number is not None else ""
        raise UserError(f"{field} = {clipped(value)}: debe ser un número.{how}")
    if field in _SWITCHES and isinstance(value, str):
        raise UserError(f"{field} = {clipped(value)}: escriba true o false.")


def _plain(number: float) -> str:
    """Return a number as YAML 1.1 reads it: with a point in its mantissa."""
    text = repr(int(number)) if number == int(number) and abs(number) < 1e15 else repr(number)
    return re.sub(r"^(-?\d+)e", r"\1.0e", text)


def _place(error: yaml.YAMLError, text: str) -> str:
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return ": tiene caracteres que no se admiten."
    problem = error.problem if isinstance(error, _RepeatedKeyError) else ""
    line = text.splitlines()[mark.line] if mark.line < len(text.splitlines()) else ""
    tab = " Hay un tabulador: use espacios." if "\t" in line else ""
    return f" (línea {mark.line + 1}): {problem or 'revise la sangría, las comas y los dos puntos.'}{tab}"


class _RepeatedKeyError(yaml.constructor.ConstructorError):
    """A key is twice in the same mapping; `problem` is a message in Spanish."""


class _StrictLoader(yaml.SafeLoader):
    """A `SafeLoader` with the scalars of YAML 1.2 (JSON schema) and without repeated keys."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 (PyYAML's own declaration)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise _RepeatedKeyError(
                        None, None, f"la clave «{clipped(key.value)}» está dos veces.", key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)


for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?(0|[1-9][0-9]*)", "-+0123456789"),
    ("float", r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("merge", r"<<", "<"),
):
    _StrictLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), list(_first))
