"""Read a GRID.yaml and return its cases: `base` settings, `grid` values crossed, additional `cases`, and `seeds`."""

import dataclasses
import hashlib
import itertools
import json
import math
import re
import shlex
import unicodedata
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from ocensa_nb.config import AUTO, SOURCES, TrainConfig
from ocensa_nb.errors import CONTROL, UserError, clipped, num, unknown
from ocensa_nb.files.verify import read_regular
from ocensa_nb.paths import SAMPLE_DATA, SAMPLES, plain_path, reason
from ocensa_nb.runtime.commands import as_text, command_line
from ocensa_nb.runtime.machine import configure

LARGEST_GRID = 2**18  # bytes; PyYAML reads some 100 KB a second
MOST_NODES = 100_000  # of the YAML document, with its aliases expanded
MOST_CASES = 10_000
LONGEST_NAME = 80  # characters of a case's folder
NEW = "NEW"  # the folder in the command that reproduces a case
KEYS = ("base", "grid", "cases", "seeds")
PATHS = ("model", "data", "corrections", "evaluation_data")  # fields that are, or may be, a path
USUAL_EVALUATION = {"predict_with": AUTO, "evaluation_data": ""}  # the fields of notebook 04
_SET_BY_THE_RUNNER = ("out", "resume")
_TRAINING_FIELDS = [f.name for f in dataclasses.fields(TrainConfig) if f.name not in _SET_BY_THE_RUNNER]
FIELDS = ["recipe", *_TRAINING_FIELDS, *USUAL_EVALUATION]


@dataclass(frozen=True)
class CaseSpec:
    """A case of a grid: what it trains and evaluates, and what it is called."""

    title: str
    settings: dict[str, Any]  # of the training and the evaluation, with the paths as the user wrote them
    files: dict[str, str]  # absolute paths of the encoder and the notices; "" for none
    changes: dict[str, Any]  # settings that differ from `base`
    config: TrainConfig = field(repr=False)  # with absolute paths

    @property
    def seed(self) -> int:
        return self.config.seed

    @cached_property
    def name(self) -> str:
        """The name of the folder: the changes, the seed, and six digits of the hash of all settings."""
        end = f"seed-{self.seed}_{_hash(self.settings)[:6]}"
        parts = [f"{_slug(name)}-{_slug(value)}" for name, value in sorted(self.changes.items())] or ["base"]
        return f"{'_'.join(parts)[: LONGEST_NAME - len(end) - 1].rstrip('-_.')}_{end}"

    @cached_property
    def group(self) -> str:
        """The same for cases that differ only in the seed."""
        without_seed = {name: value for name, value in self.settings.items() if name != "seed"}
        return _hash(without_seed)[:12]

    @cached_property
    def training(self) -> str:
        """The same for cases that train the same model, and differ only in its evaluation."""
        return _hash(self.config.to_dict())

    @cached_property
    def features(self) -> str:
        """The same for cases that share the frozen features; "" without them."""
        c = self.config
        if not (c.freeze_layers and c.cache_features):
            return ""
        texts = (c.data, c.corrections, list(c.text_fields), c.columns, sorted(c.heads), c.max_length)
        return _hash(c.model, texts, c.freeze_layers, c.precision)

    def input_files(self) -> dict[str, Path]:
        notices = {**self.files, "data": self.files["data"] or str(SAMPLE_DATA)}
        return {name: Path(path) for name, path in notices.items() if path and name != "model"}

    def content(self) -> dict[str, Any]:
        command = command_line(self.config.replace(out=NEW), self.settings["recipe"])
        evaluation = {"--with": self.settings["predict_with"], "--data": self.files["evaluation_data"]}
        words = [word for flag, value in evaluation.items() if value not in (AUTO, "") for word in (flag, value)]
        if words:
            command += f" && python -m ocensa_nb evaluate --run {NEW} --out {NEW}-04 {shlex.join(words)}"
        fields = ("title", "settings", "changes", "group", "seed", "files")
        return {name: getattr(self, name) for name in fields} | {"command": command}


def read_grid(path: str | Path) -> tuple[dict[str, Any], str]:
    """Return content and text of a YAML 1.2 file; raises `UserError` if it is not a mapping, or a key is repeated."""
    file = plain_path(path)
    try:
        text = read_regular(file, LARGEST_GRID).decode("utf-8-sig")
        content = yaml.load(text, _Loader)  # a subclass of SafeLoader
    except OSError as error:
        raise UserError(f"No se puede leer la cuadrícula «{file}»: {reason(error)}.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"La cuadrícula «{file}» no es texto en UTF-8. Guárdela con esa codificación.") from error
    except yaml.YAMLError as error:
        raise UserError(f"La cuadrícula «{file}» no es YAML válido{_where(error, text)}") from error
    except RecursionError as error:
        raise UserError(f"La cuadrícula «{file}» tiene demasiados niveles, unos dentro de otros.") from error
    if not isinstance(content, Mapping):
        raise UserError(f"La cuadrícula «{file}» debe tener las claves base, grid, cases y seeds; las que necesite.")
    return dict(content), text


def expand(content: Mapping[str, Any], auto: str) -> list[CaseSpec]:
    """Return the cases of a grid, seed by seed; raises `UserError` if it is not valid, or two cases are the same."""
    _check_form(content)
    base, crossed, named = content.get("base", {}), content.get("grid", {}), content.get("cases", [])
    seeds = [{"seed": seed} for seed in content.get("seeds", [])] or [{}]
    count = (math.prod(map(len, crossed.values())) + len(named)) * len(seeds)
    if count > MOST_CASES:
        raise UserError(f"La cuadrícula tiene {num(count)} casos, y {num(MOST_CASES)} son el máximo. Quite valores.")
    products = [dict(zip(crossed, values, strict=True)) for values in itertools.product(*crossed.values())]
    cases = [*(products if crossed or not named else []), *named]
    specs = [_spec({"recipe": "auto", **base, **seed}, case, seed, auto) for seed in seeds for case in cases]
    _check_unique(specs)
    return specs


def _check_form(content: Mapping[str, Any]) -> None:
    """Raise `UserError` if a key, a list, or the name of a field is not valid; the values are checked by case."""
    try:
        json.dumps(content, default=str, ensure_ascii=False, sort_keys=True).encode()
    # A mapping inside itself; keys of several types; half of a pair of characters, such as "\ud800".
    except (ValueError, TypeError, RecursionError) as error:
        raise UserError(
            "La cuadrícula tiene valores que se contienen a sí mismos, claves que no son texto o texto que no es UTF-8."
        ) from error
    for key, value in content.items():
        if key not in KEYS:
            raise UserError(unknown("En la cuadrícula, la clave", key, KEYS))
        if key in ("cases", "seeds"):
            _check_list(key, value)
        elif not isinstance(value, Mapping):
            raise UserError(f"{key} = {clipped(repr(value))}: se espera «campo: valor», uno por línea.")
    for name in content.get("base", {}):
        _check_field("base", name)
    for name, values in content.get("grid", {}).items():
        _check_field("grid", name, "seed")
        _check_list(f"grid: {name}", values)
    for number, case in enumerate(content.get("cases", []), 1):
        if not isinstance(case, Mapping):
            raise UserError(f"cases, caso {number}: se espera «campo: valor», y hay {clipped(repr(case))}.")
        for name in case.keys() - {"name"}:
            _check_field(f"cases, caso {number}", name, "seed")
        name = case.get("name", "x")
        if not isinstance(name, str) or not name.strip() or re.search(CONTROL, name):
            raise UserError(f"cases, caso {number}: name = {clipped(repr(name))}: debe ser un texto.")
    if "seeds" in content and "seed" in content.get("base", {}):
        raise UserError("base: seed sobra, porque hay seeds. Deje solo seeds.")


def _check_list(where: str, values: Any) -> None:
    if not isinstance(values, list | tuple):
        raise UserError(f"{where} = {clipped(repr(values))}: se espera una lista, p. ej. [1, 2].")
    if not values:
        raise UserError(f"{where}: la lista está vacía. Ponga un valor o quite la línea.")
    seen = Counter(json.dumps(value, sort_keys=True, default=str) for value in values)
    if repeated := next((value for value, count in seen.items() if count > 1), None):
        raise UserError(f"{where}: {clipped(repeated)} está dos veces.")


def _check_field(where: str, name: Any, elsewhere: str = "") -> None:
    if name == elsewhere:
        raise UserError(f"{where}: {name} va en seeds, una lista en el primer nivel del archivo.")
    if name in _SET_BY_THE_RUNNER:
        raise UserError(f"{where}: {name} no se puede fijar; cada caso tiene su carpeta, y se continúa solo.")
    if name not in FIELDS:
        raise UserError(unknown(f"{where}: el campo", name, FIELDS))


def _spec(base: Mapping[str, Any], case: Mapping[str, Any], seed: Mapping[str, Any], auto: str) -> CaseSpec:
    """Return one case; `base` includes the seed."""
    fields = {name: value for name, value in case.items() if name != "name"}
    try:
        settings, files, config = _settle({**base, **fields}, auto)
        common, _, _ = _settle(base, auto)
    except UserError as error:
        where = ", ".join(f"{name} = {clipped(value)}" for name, value in {**fields, **seed}.items()) or "base"
        raise UserError(f"Caso «{clipped(case.get('name', where))}»: {error}") from error
    changes = {name: value for name, value in settings.items() if name not in common or common[name] != value}
    title = ", ".join(f"{name}={as_text(value)}" for name, value in changes.items()) or "base"
    return CaseSpec(case.get("name", title).strip(), settings, files, changes, config)


def _settle(fields: Mapping[str, Any], auto: str) -> tuple[dict[str, Any], dict[str, str], TrainConfig]:
    """Return the normalised settings, the absolute paths, and the config of one case."""
    fields, values = {**USUAL_EVALUATION, **fields}, {}
    for name, value in fields.items():
        if value is None:
            raise UserError(f"{name} no tiene valor. Escríbalo, o quite la línea.")
        values[name] = _absolute(name, value) if name in PATHS else value
    predict_with, evaluation_data = (values.pop(name) for name in USUAL_EVALUATION)
    if predict_with not in (AUTO, *SOURCES):
        raise UserError(unknown("En predict_with, el valor", predict_with, (AUTO, *SOURCES)))
    recipe = _checked_text("recipe", values.pop("recipe"))
    recipe = auto if recipe == "auto" else recipe
    config = configure(recipe, values).validate()
    # As the config has them: 0 and 0.0 are the same setting.
    written = {name: fields[name] for name in (*PATHS, "predict_with") if name in fields}
    normal = config.to_dict()
    settings = {"recipe": recipe, "seed": config.seed} | {name: normal[name] for name in values} | written
    files = {name: normal[name] for name in ("model", "data", "corrections")} | {"evaluation_data": evaluation_data}
    return settings, files, config


def _checked_text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise UserError(f"{name} = {clipped(repr(value))}: debe ser un texto.")
    return value


def _absolute(name: str, value: Any) -> str:
    """Return a path of the user as an absolute path; the name of an encoder stays as it is."""
    path = plain_path(_checked_text(name, value))
    if path.parent == Path("data") and not path.exists():
        path = SAMPLES / path.name  # a grid of the installed package names an included file
    if value and name != "model" and not path.is_file():
        raise UserError(f"{name} = {value}: no existe ese archivo (se buscó en «{path.absolute()}»).")
    return str(path.absolute()) if value and path.exists() and (name != "model" or path.is_dir()) else value


def _check_unique(specs: list[CaseSpec]) -> None:
    seen: dict[tuple[str, str, str], CaseSpec] = {}
    for spec in specs:
        first = seen.setdefault((spec.training, spec.settings["predict_with"], spec.files["evaluation_data"]), spec)
        if first is not spec:
            raise UserError(
                f"Los casos «{first.title}» y «{spec.title}» (semilla {spec.seed}) son el mismo. Quite uno."
            )
    groups = {spec.group: spec.title for spec in specs}
    for title, count in Counter(groups.values()).items():
        if count > 1:
            raise UserError(f"Hay {count} casos con el mismo name, «{clipped(title)}». Use uno distinto en cada caso.")
    for name, count in Counter(spec.name for spec in specs).items():
        if count > 1:
            raise UserError(f"Dos casos tendrían la misma carpeta, «{name}». Cambie la semilla de uno.")


def _hash(*values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _slug(value: Any) -> str:
    """Return text that is safe in a file name on every system; of a path, its last part."""
    text = Path(value).stem if isinstance(value, str) and ("/" in value or "\\" in value) else as_text(value)
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9._]+", "-", plain).strip("-._") or "x"


def _where(error: yaml.YAMLError, text: str) -> str:
    """Return the end of the message of a YAML error: the line, and what to look at."""
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return ": tiene caracteres que no se admiten."
    problem = error.problem if isinstance(error, _RefusedError) else ""
    line = text.splitlines()[mark.line] if mark.line < len(text.splitlines()) else ""
    tab = " Hay un tabulador: use espacios." if "\t" in line else ""
    return f" (línea {mark.line + 1}): {problem or 'revise la sangría, las comas y los dos puntos.'}{tab}"


class _RefusedError(yaml.constructor.ConstructorError):
    """YAML that a grid does not use; `problem` is a message in Spanish."""


class _Loader(yaml.SafeLoader):
    """A `SafeLoader` with the types of YAML 1.2 (core schema, decimal), and without tags and repeated keys."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 (PyYAML's own declaration)

    def get_single_node(self) -> yaml.Node | None:
        """Return the root of the document, before any alias is expanded."""
        root = super().get_single_node()
        if root is not None and _size(root, {}) > MOST_NODES:
            problem = f"sus valores se contienen a sí mismos, o son más de {num(MOST_NODES)} en total."
            raise _RefusedError(None, None, problem, root.start_mark)
        return root

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node:
        event = self.peek_event()
        if getattr(event, "tag", None):  # an alias has none
            raise _RefusedError(None, None, "no se admiten etiquetas como !!int.", event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    problem = f"la clave «{clipped(key.value)}» está dos veces."
                    raise _RefusedError(None, None, problem, key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def _size(node: yaml.Node, sizes: dict[int, float]) -> float:
    """Return how many nodes one has with its aliases expanded; infinity if one contains itself."""
    if isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) not in sizes:
        sizes[id(node)] = math.inf  # until it is known
        parts = itertools.chain(*node.value) if isinstance(node, yaml.MappingNode) else node.value
        sizes[id(node)] = 1 + sum(_size(part, sizes) for part in parts)
    return sizes[id(node)]


for _kind, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?(0|[1-9][0-9]{0,39})", "-+0123456789"),  # Python refuses to read one of 5,000 digits
    ("float", r"[-+]?(([0-9]+\.[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+)", "-+.0123456789"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("merge", r"<<", "<"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(rf"^(?:{_pattern})$"), list(_first))
