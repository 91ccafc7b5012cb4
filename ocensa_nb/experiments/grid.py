"""A grid of experiments: its cases, checked one by one, with names that do not depend on the order of the file.

base: {recipe: cpu, model: minilm}       settings of every case; `recipe` is a field like any other
grid: {freeze_layers: [2, 4, 5]}         crossed
cases: [{name: guía, recipe: baseline}]  additional cases; `name` is what the report calls them
seeds: [1, 2, 3]                         every case with each of them
"""

import hashlib
import itertools
import json
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ocensa_nb.config import TrainConfig
from ocensa_nb.errors import UserError, clipped, unknown
from ocensa_nb.experiments.grid_checks import EVALUATION, KEYS, check_field, check_list, mapping_or_list
from ocensa_nb.experiments.grid_file import FILES, check_scalar
from ocensa_nb.paths import plain_path
from ocensa_nb.runtime.machine import configure

SOURCES = ("auto", "encoder", "linear", "blend")
MOST_CASES = 10_000
LONGEST_NAME = 80  # characters of a case's folder


@dataclass(frozen=True)
class Case:
    """One case: what it trains and evaluates, and what it is called."""

    title: str
    settings: dict[str, Any]
    evaluation: dict[str, str]
    changes: dict[str, Any]
    config: TrainConfig = field(repr=False)

    @property
    def recipe(self) -> str:
        """The recipe, not `auto`."""
        return self.settings["recipe"]

    @property
    def seed(self) -> int:
        """The seed."""
        return self.config.seed

    @cached_property
    def name(self) -> str:
        """The name of the folder: the changes, the seed, and six digits of the hash of all settings."""
        end = f"seed-{self.seed}_{_hash(self.settings, self.evaluation)[:6]}"
        parts = [f"{_slug(name)}-{_slug(value)}" for name, value in sorted(self.changes.items())] or ["base"]
        return f"{'_'.join(parts)[: LONGEST_NAME - len(end) - 1].rstrip('-_.')}_{end}"

    @cached_property
    def group(self) -> str:
        """The same for cases that differ only in the seed."""
        without_seed = {name: value for name, value in self.settings.items() if name != "seed"}
        return _hash(without_seed, self.evaluation)[:12]

    @cached_property
    def training(self) -> str:
        """The same for cases that train the same model, and differ only in its evaluation."""
        return _hash(self.config.to_dict())

    @cached_property
    def features(self) -> str:
        """The same for cases that share the cached features of their frozen layers; "" without them."""
        c = self.config
        if not (c.freeze_layers and c.cache_features):
            return ""
        texts = (c.data, c.corrections, list(c.text_fields), c.columns, sorted(c.heads), c.max_length)
        return _hash(c.model, texts, c.freeze_layers, c.precision)


@dataclass(frozen=True)
class Grid:
    """The content of a GRID.yaml, checked for its form; `expand` checks the values of each case."""

    base: dict[str, Any] = field(default_factory=dict)
    grid: dict[str, list[Any]] = field(default_factory=dict)
    cases: list[dict[str, Any]] = field(default_factory=list)
    seeds: list[Any] = field(default_factory=list)

    @classmethod
    def parse(cls, content: Mapping[str, Any]) -> "Grid":
        """Return the grid of a mapping; raises `UserError` naming what is wrong with its form."""
        try:
            json.dumps(content, default=str)
        except (ValueError, TypeError, RecursionError) as error:  # an alias inside its own anchor; a key that is a list
            raise UserError(
                "La cuadrícula tiene valores que se contienen a sí mismos, o claves que no son texto."
            ) from error
        for key in content:
            if key not in KEYS:
                raise UserError(unknown("En la cuadrícula, la clave", key, KEYS))
        found = cls(**{key: mapping_or_list(content, key) for key in KEYS if key in content})
        for name in found.base:
            check_field("base", name)
        for name, values in found.grid.items():
            check_field("grid", name, ("seed",))
            check_list(f"grid: {name}", values)
        for number, case in enumerate(found.cases, 1):
            if not isinstance(case, Mapping):
                raise UserError(f"cases, caso {number}: se espera «campo: valor», y hay {clipped(repr(case))}.")
            for name in case:
                if name != "name":
                    check_field(f"cases, caso {number}", name, ("seed",))
            if not (isinstance(case.get("name", ""), str) and case.get("name", "x").strip()):
                raise UserError(f"cases, caso {number}: name = {clipped(repr(case['name']))}: debe ser un texto.")
        if "seeds" in content:
            check_list("seeds", found.seeds)
            if "seed" in found.base:
                raise UserError("base: seed sobra, porque hay seeds. Deje solo seeds.")
        count = (_product(found.grid) + len(found.cases)) * max(1, len(found.seeds))
        if count > MOST_CASES:
            raise UserError(f"La cuadrícula tiene {count:,} casos, y {MOST_CASES:,} son el máximo. Quite valores.")
        return found

    def expand(self, auto: str) -> list[Case]:
        """Return all cases, seed by seed, each with a validated config."""
        drawn = [dict(zip(self.grid, values, strict=True)) for values in itertools.product(*self.grid.values())]
        given = [*(drawn if self.grid or not self.cases else []), *self.cases]
        seeds = [{"seed": seed} for seed in self.seeds] or [{}]
        found = [self._case(own, seed, auto) for seed in seeds for own in given]
        _check_unique(found)
        return found

    def _case(self, own: Mapping[str, Any], seed: Mapping[str, Any], auto: str) -> Case:
        fields = {name: value for name, value in own.items() if name != "name"}
        where = ", ".join(f"{name} = {clipped(value)}" for name, value in {**fields, **seed}.items()) or "base"
        try:
            settings, evaluation, config = _settle({"recipe": "auto", **self.base, **fields, **seed}, auto)
            usual, usual_evaluation, _ = _settle({"recipe": "auto", **self.base, **seed}, auto)
        except UserError as error:
            raise UserError(f"Caso «{clipped(own.get('name', where))}»: {error}") from error
        common = {**usual, **_as_fields(usual_evaluation)}
        mine = {**settings, **_as_fields(evaluation)}
        changes = {name: value for name, value in mine.items() if name not in common or common[name] != value}
        shown = ", ".join(f"{name}={_shown(value)}" for name, value in changes.items())
        return Case(str(own.get("name", shown or "base")).strip(), settings, evaluation, changes, config)


def _settle(fields: dict[str, Any], auto: str) -> tuple[dict[str, Any], dict[str, str], TrainConfig]:
    """Return the normalised settings, the parameters of notebook 04, and the config of one case."""
    for name, value in fields.items():
        check_scalar(name, value)
    evaluation = {**EVALUATION, **{name: fields.pop(name) for name in EVALUATION if name in fields}}
    if evaluation["predict_with"] not in SOURCES:
        raise UserError(unknown("En predict_with, el valor", evaluation["predict_with"], SOURCES))
    recipe = _text("recipe", fields.pop("recipe"))
    recipe = auto if recipe == "auto" else recipe
    if isinstance(fields.get("text_fields"), list):
        fields["text_fields"] = tuple(fields["text_fields"])
    paths = {name: _absolute(name, value) for name, value in {**fields, **evaluation}.items() if name in FILES}
    evaluation_data = paths.pop("evaluation_data")
    config = configure(recipe, {**fields, **paths}).validate()
    # As the config has them: 0 and 0.0 are the same setting.
    values = config.to_dict()
    settings = {"recipe": recipe, "seed": config.seed}
    settings |= {name: value if name in paths else values[name] for name, value in fields.items()}
    return settings, {"predict_with": evaluation["predict_with"], "data": evaluation_data}, config


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise UserError(f"{name} = {clipped(repr(value))}: debe ser un texto.")
    return value


def _absolute(name: str, value: Any) -> str:
    """Return a path of the user, relative to the working directory as in the command line, as an absolute path.

    A name of an encoder is not a path.
    """
    path = plain_path(_text(name, value))
    if value and name != "model" and not path.is_file():
        raise UserError(f"{name} = {value}: no existe ese archivo (se buscó en «{path.absolute()}»).")
    return str(path.absolute()) if value and path.exists() and (name != "model" or path.is_dir()) else value


def _as_fields(evaluation: Mapping[str, str]) -> dict[str, str]:
    return {"predict_with": evaluation["predict_with"], "evaluation_data": evaluation["data"]}


def _check_unique(cases: list[Case]) -> None:
    seen: dict[tuple[str, str], Case] = {}
    for case in cases:
        first = seen.setdefault((case.training, json.dumps(case.evaluation)), case)
        if first is not case:
            raise UserError(
                f"Los casos «{first.title}» y «{case.title}» (semilla {case.seed}) son el mismo: dan los mismos "
                "ajustes. Quite uno."
            )
    groups = {case.group: case.title for case in cases}
    for title, count in Counter(groups.values()).items():
        if count > 1:
            raise UserError(f"Hay {count} casos con el mismo name, «{clipped(title)}». Use uno distinto en cada caso.")
    for name, count in Counter(case.name for case in cases).items():
        if count > 1:
            raise UserError(f"Dos casos tendrían la misma carpeta, «{name}». Cambie la semilla de uno.")


def _product(grid: Mapping[str, list[Any]]) -> int:
    return math.prod(len(values) for values in grid.values())


def _hash(*values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else str(value)


def _slug(value: Any) -> str:
    """Return text that is safe in a file name on every system; of a path, its last part."""
    text = Path(value).stem if isinstance(value, str) and ("/" in value or "\\" in value) else _shown(value)
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9._]+", "-", plain).strip("-._") or "x"
