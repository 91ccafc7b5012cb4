"""The settings of a training run: a flat frozen dataclass, its validation, and the recipes."""

import contextlib
import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, get_args

from typing_extensions import Doc

from ocensa_nb.errors import UserError, clipped, num, unknown
from ocensa_nb.paths import meant, plain_path

# `parada`, SAP's mark of a stopped unit, raises the weighted F1 of the priority from 0.561 to 0.590 and its macro F1
# from 0.478 to 0.526 (7,100 real notices, `LinearModel`, 5 splits; standard errors of the differences 0.001 and 0.006).
TEXT_FIELDS = ("equipo", "familia_equipo", "denominacion", "problema", "componente", "parada")
PRECISIONS = ("auto", "fp32", "tf32", "bf16", "fp16")
CHOICES = {"precision": PRECISIONS, "padding": ("dynamic", "max_length"), "resume": ("auto", "never")}
METRIC_NAMES = ("f1", "f1_macro", "accuracy", "precision", "recall")
MEANS = ("f1", "f1_macro")  # over the labels
ENCODER, LINEAR, BLEND = SOURCES = ("encoder", "linear", "blend")  # what a run predicts with
AUTO = "auto"  # the best of them on the validation rows

# Location and execution of a run, not its result: two runs that differ only here are the same experiment.
_PATHS = ("model", "data", "corrections", "out")
_NOT_IN_FINGERPRINT = ("data", "corrections", "out", "num_workers", "resume", "checkpoint_minutes")
# The learning task and its data: changing the recipe does not change these fields.
_TASK = (
    *("model", "data", "corrections", "heads", "text_fields", "columns", "fields"),
    *("min_class_count", "val_size", "test_size", "seed", "monitor"),
)


@dataclass(frozen=True)
class _Whole:
    """The integers from `least` to `most`."""

    least: int
    most: int = 1_000_000

    def __contains__(self, value: object) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and self.least <= value <= self.most

    def __str__(self) -> str:
        return f"un número entero, de {self.least} a {num(self.most)}"


@dataclass(frozen=True)
class _Real:
    """The numbers from 0, without 0 itself if `positive`, to `below`, which is excluded."""

    below: float
    positive: bool = False

    def __contains__(self, value: object) -> bool:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return is_number and 0 <= value < self.below and (value > 0 or not self.positive)

    def __str__(self) -> str:
        return f"un número, {'más de 0' if self.positive else '0 o más'} y menos de {self.below:g}"


_SHARE, _RATE, _PART = _Real(1), _Real(1, positive=True), _Real(0.5, positive=True)
_FROZEN = _Whole(-100, 100)  # as Python's indices: a negative number leaves as many of the upper layers to be trained
_POSITIVE = _Real(1e30, positive=True)  # limited, because an integer of hundreds of digits does not fit in a float
_KINDS = {str: "un texto", bool: "True o False"}


@dataclass(frozen=True)
class TrainConfig:
    """Settings of one training run. The help texts of the fields are in Spanish, because users read them."""

    model: Annotated[str, Doc("codificador: un nombre del catálogo, una carpeta o un id de Hugging Face")] = "minilm"
    data: Annotated[str, Doc("CSV o XLSX con los avisos; vacío = los datos sintéticos incluidos")] = ""
    corrections: Annotated[
        str, Doc("CSV o XLSX con las clases corregidas en la revisión, que reemplazan las de data; vacío = ninguna")
    ] = ""
    out: Annotated[str, Doc("carpeta de la corrida; vacío = runs/run-001, run-002, …")] = ""
    heads: Annotated[dict[str, float], Doc("etiquetas que se aprenden y su peso en la pérdida")] = field(
        default_factory=lambda: {"modo": 0.1, "causa": 0.6, "prioridad": 0.3}
    )
    text_fields: Annotated[tuple[str, ...], Doc("columnas que se añaden a la descripción, si existen")] = TEXT_FIELDS
    columns: Annotated[dict[str, str], Doc('columnas con otro nombre, p. ej. causa "Mi columna"')] = field(
        default_factory=dict
    )
    fields: Annotated[
        tuple[str, ...], Doc("columnas que lee el modelo simple, además de las de SAP que se conocen al crear el aviso")
    ] = ()
    max_length: Annotated[int, Doc("tokens por aviso como máximo; el resto se recorta"), _Whole(4)] = 128
    padding: Annotated[
        str, Doc("relleno: dynamic (hasta el texto más largo del batch) o max_length (todos iguales)")
    ] = "dynamic"
    batch_size: Annotated[int, Doc("filas por micro-batch en memoria"), _Whole(1)] = 32
    gradient_accumulation_steps: Annotated[int, Doc("micro-batches por paso del optimizador"), _Whole(1)] = 1
    epochs: Annotated[int, Doc("épocas como máximo"), _Whole(1)] = 10
    learning_rate: Annotated[float, Doc("tasa de aprendizaje del codificador"), _RATE] = 2e-4
    head_learning_rate: Annotated[float, Doc("tasa de aprendizaje de las cabezas"), _RATE] = 1e-3
    weight_decay: Annotated[float, Doc("decaimiento de pesos de AdamW"), _SHARE] = 0.01
    warmup_ratio: Annotated[float, Doc("fracción de los pasos en que la tasa sube hasta su valor"), _SHARE] = 0.1
    label_smoothing: Annotated[float, Doc("suavizado de etiquetas, de 0 a 1"), _SHARE] = 0.05
    class_weights: Annotated[bool, Doc("dar más peso a las clases raras de la causa (regla balanced)")] = False
    max_grad_norm: Annotated[float, Doc("norma máxima del gradiente"), _POSITIVE] = 1.0
    dropout: Annotated[float, Doc("dropout de la capa compartida y de las cabezas"), _SHARE] = 0.1
    precision: Annotated[str, Doc("formato numérico: auto, fp32, tf32, bf16 o fp16")] = "auto"
    freeze_layers: Annotated[
        int, Doc("capas inferiores congeladas, con los embeddings; 0 = ninguna, -1 = todas menos la última"), _FROZEN
    ] = 0
    cache_features: Annotated[bool, Doc("calcular las capas congeladas una sola vez y guardar su salida")] = True
    cls_only: Annotated[bool, Doc("calcular la última capa solo para [CLS], el único que se usa (exacto)")] = True
    compile: Annotated[bool, Doc("compilar el modelo con torch.compile; tarda en arrancar")] = False
    num_workers: Annotated[int, Doc("procesos que preparan los batches; 0 suele bastar"), _Whole(0, 256)] = 0
    patience: Annotated[int, Doc("épocas sin mejora antes de parar"), _Whole(1)] = 3
    min_delta: Annotated[float, Doc("diferencia mínima que cuenta como mejora"), _SHARE] = 0.001
    monitor: Annotated[str, Doc("métrica de validación que decide la mejor época; f1 = media de las etiquetas")] = "f1"
    min_class_count: Annotated[int, Doc("con 6 clases o más, las de menos filas se unen en «Other»"), _Whole(1)] = 2
    val_size: Annotated[float, Doc("fracción de las filas para validación"), _PART] = 0.1
    test_size: Annotated[float, Doc("fracción de las filas para prueba"), _PART] = 0.1
    seed: Annotated[int, Doc("semilla de todo lo aleatorio"), _Whole(0, 2**32 - 1)] = 42
    resume: Annotated[str, Doc("auto (continúa una corrida igual que se interrumpió) o never (empieza otra)")] = "auto"
    checkpoint_minutes: Annotated[float, Doc("minutos entre checkpoints; además, uno por época"), _POSITIVE] = 5.0

    def __post_init__(self) -> None:
        """Convert pasted paths, and integers in float fields: 0 and 0.0 must have the same fingerprint."""
        for name in _PATHS:
            if isinstance(getattr(self, name), str):
                object.__setattr__(self, name, meant(getattr(self, name)))
        for name in ("text_fields", "fields"):
            if isinstance(getattr(self, name), list):  # of JSON or YAML
                object.__setattr__(self, name, tuple(getattr(self, name)))
        for setting in dataclasses.fields(self):
            if get_args(setting.type)[0] is float:
                object.__setattr__(self, setting.name, _real(getattr(self, setting.name)))
        if isinstance(self.heads, Mapping):
            object.__setattr__(self, "heads", {head: _real(weight) for head, weight in self.heads.items()})

    @property
    def effective_batch_size(self) -> int:
        return self.batch_size * self.gradient_accumulation_steps

    def steps_an_epoch(self, rows: int) -> int:
        """Return the optimiser steps per epoch; the last may have fewer rows."""
        return -(-rows // self.effective_batch_size)

    def replace(self, **changes: Any) -> "TrainConfig":
        """Return a copy with some fields changed; raises `UserError` for a field that does not exist."""
        names = [f.name for f in dataclasses.fields(self)]
        for name in changes:
            if name not in names:
                raise UserError(unknown("La opción", name, names))
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        return json.loads(json.dumps(dataclasses.asdict(self)))

    def fingerprint(self) -> str:
        """Return the SHA-256 of the fields that affect the result; paths and resume settings are excluded."""
        values = {k: v for k, v in self.to_dict().items() if k not in _NOT_IN_FINGERPRINT}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()

    def differences(self, other: Mapping[str, Any]) -> list[str]:
        """Return the fingerprint's fields that differ from another config's `to_dict`, each as `field: other → own`."""
        return [
            f"{name}: {other.get(name)!r} → {value!r}"
            for name, value in self.to_dict().items()
            if name not in _NOT_IN_FINGERPRINT and other.get(name) != value
        ]

    @property
    def monitored_head(self) -> str:
        """The head of the metric in `monitor`; of a mean, the first head with the largest loss weight."""
        if self.monitor in MEANS:
            return max(self.heads, key=lambda head: self.heads[head])
        return next(head for head in self.heads if self.monitor.removeprefix(f"{head}_") in METRIC_NAMES)

    def validate(self) -> "TrainConfig":
        """Return the config itself; raises `UserError` naming the first field and value that are not valid."""
        for setting in dataclasses.fields(self):
            kind, _, *limits = get_args(setting.type)
            value = getattr(self, setting.name)
            if kind in _KINDS and not isinstance(value, kind):
                raise UserError(f"{setting.name} = {clipped(repr(value))}: debe ser {_KINDS[kind]}.")
            if limits and value not in limits[0]:
                raise UserError(f"{setting.name} = {clipped(repr(value))}: debe ser {limits[0]}.")
        for name in _PATHS:
            plain_path(getattr(self, name))
        are_lists = isinstance(self.columns, Mapping) and {type(self.text_fields), type(self.fields)} == {tuple}
        names = (*self.columns, *self.columns.values(), *self.text_fields, *self.fields) if are_lists else (None,)
        if not all(isinstance(name, str) for name in names):
            raise UserError("columns debe ser {papel: columna}, y text_fields y fields, listas de nombres.")
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise UserError(unknown(f"En {name}, el valor", getattr(self, name), choices))
        if not isinstance(self.heads, Mapping) or not self.heads:
            raise UserError("heads está vacío: indique al menos una etiqueta que aprender, p. ej. {'causa': 1.0}.")
        for head, weight in self.heads.items():
            if not isinstance(head, str) or not re.fullmatch(r"[a-z][a-z0-9_]*", head):
                raise UserError(f"heads: «{head}» no sirve de etiqueta; use minúsculas sin acentos, dígitos y _.")
            if weight not in _POSITIVE:
                raise UserError(f"heads: el peso de «{head}» es {clipped(weight)}; debe ser {_POSITIVE}.")
        monitors = [*MEANS, *(f"{head}_{metric}" for head in self.heads for metric in METRIC_NAMES)]
        if self.monitor not in monitors:
            raise UserError(unknown("En monitor, la métrica", self.monitor, monitors))
        return self


def _real(value: Any) -> Any:
    with contextlib.suppress(OverflowError):
        return float(value) if isinstance(value, int) and not isinstance(value, bool) else value
    return value


# A recipe sets fields; the user's values override it. `baseline` is the guide's starting point, for measurements, and
# `exact` only adds optimisations that do not change the function. The others weight the heads equally: with the guide's
# weights `modo`, at 0.1, reached a weighted F1 of 0.67 when `causa` had already reached its ceiling of 0.94
# (minilm on the shipped data, 6 epochs).
_GUIDE = {"batch_size": 16, "learning_rate": 2e-5, "head_learning_rate": 2e-5, "class_weights": True, "epochs": 15}
# Chosen on 7,100 real and 8,000 synthetic notices, minilm, by the mean F1 of the labels on the validation rows, mean ±
# standard deviation of 9 trainings of 10 epochs (3 splits × 3 seeds); then the test F1 of modo / causa / prioridad:
#   learning_rate, head   real                                         synthetic
#   2e-4, 1e-3            0.540 ± 0.006    0.664 / 0.374 / 0.551       0.891 ± 0.006    0.909 / 0.874 / 0.903
#   4e-4, 1e-3            0.540 ± 0.005    0.664 / 0.374 / 0.547       0.893 ± 0.004    0.913 / 0.876 / 0.903
#   8e-4, 2e-3            0.527 ± 0.004    0.662 / 0.370 / 0.517       0.889 ± 0.005    0.911 / 0.875 / 0.898
# The best epoch was 9.2 to 9.8 of 10 on average, so a patience of 3 seldom stops before. One training each on real
# notices without `parada`, 8 epochs at 2e-4 or 4e-4: freezing 5 of 6 layers gave 0.524 at 3.7 s per epoch, 4 gave
# 0.516 at 33 s (one core). The recipes for a GPU keep the rates of fine-tuning whole encoders: not chosen again.
_LAST = {"freeze_layers": -1, "batch_size": 32, "learning_rate": 2e-4, "head_learning_rate": 1e-3}
_EVEN = {"heads": {"modo": 1 / 3, "causa": 1 / 3, "prioridad": 1 / 3}}
RECIPES: dict[str, dict[str, Any]] = {
    "baseline": {**_GUIDE, "precision": "fp32", "max_length": 256, "padding": "max_length", "cls_only": False},
    "exact": {**_GUIDE, "precision": "fp32", "max_length": 256},
    "cpu": {**_EVEN, **_LAST, "epochs": 10},
    "t4": {**_EVEN, "batch_size": 64, "learning_rate": 5e-5},
    "t4-small": {**_EVEN, "batch_size": 16, "gradient_accumulation_steps": 4, "learning_rate": 5e-5},
    "quick": {**_EVEN, **_LAST, "epochs": 5, "patience": 2},
}


def from_recipe(name: str, overrides: Mapping[str, Any] | None = None) -> TrainConfig:
    """Return the config of a recipe with the user's values; raises `UserError` for a wrong name, field or value."""
    if name not in RECIPES:
        raise UserError(unknown("La receta", name, ["auto", *RECIPES]))
    return TrainConfig().replace(**RECIPES[name]).replace(**(overrides or {})).validate()


def baseline_of(config: TrainConfig) -> TrainConfig:
    """Return the recipe `baseline` with the task fields of a config: data, encoder, heads, splits and seed."""
    return from_recipe("baseline", {name: getattr(config, name) for name in _TASK} | {"cache_features": False})


def with_recipe(config: TrainConfig, name: str) -> TrainConfig:
    """Return a recipe with the task, paths and resume settings of a config; other heads keep their loss weights."""
    kept = {name: getattr(config, name) for name in dict.fromkeys((*_TASK, *_NOT_IN_FINGERPRINT))}
    if kept["heads"].keys() == from_recipe(name).heads.keys():
        del kept["heads"]
    return from_recipe(name, kept)
