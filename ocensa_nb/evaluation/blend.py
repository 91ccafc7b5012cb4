"""Blend the calibrated probabilities of the encoder and the linear model, per label; `RUN/linear/blend.json`."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from scipy.special import softmax

from ocensa_nb.config import AUTO, BLEND, ENCODER, LINEAR, SOURCES
from ocensa_nb.data.splits import Arrays
from ocensa_nb.errors import UserError
from ocensa_nb.evaluation.calibration import COLDEST, HOTTEST, fit_confidence, fit_temperature, recalibrate
from ocensa_nb.evaluation.metrics import MODEL_TITLES, bootstrap, predictions_of
from ocensa_nb.files import tensors
from ocensa_nb.files.verify import read_json
from ocensa_nb.models.linear import CHUNK
from ocensa_nb.runs.manifest import LINEAR as FOLDER
from ocensa_nb.runs.run import Run

FILE = f"{FOLDER}/blend.json"
IDENTITY = (1.0, 0.0)  # a confidence curve
WEIGHTS = np.linspace(0, 1, 11)
RESAMPLES = 200
SURE = 2.0  # standard errors

Logits = Mapping[str, np.ndarray]  # float32 (rows, classes), per model or per label


@dataclass(frozen=True)
class Blend:
    """How the probabilities of one label are computed from the logits of the encoder and of the linear model."""

    weight: float  # of the linear model, 0 to 1
    temperatures: dict[str, float]  # per model
    curves: dict[str, tuple[float, list[float]]]  # per source, from `fit_confidence`

    @classmethod
    def fit(cls, logits: Logits, labels: np.ndarray) -> "Blend":
        """Choose weight, temperatures, curves and source on validation rows, from the logits of both models."""
        temperatures = {model: fit_temperature(logits[model], labels) for model in (ENCODER, LINEAR)}
        encoder, linear = (softmax(logits[model] / temperatures[model], axis=1) for model in (ENCODER, LINEAR))
        scores = np.array(list(_scores(labels, {w: _mix(encoder, linear, w).argmax(axis=1) for w in WEIGHTS}).values()))
        # The F1 hardly changes over a wide range of weights, and its maximum on some hundred rows may fall anywhere in
        # it: the weight is the nearest to equal ones that is not surely worse (two standard errors) than the maximum.
        # On 7,100 real notices (3 splits, 30 % held out) the causes gain 0.002 weighted and 0.016 macro F1 over the
        # maximum of the mean of resamples, the modes 0.003 and 0.003. That equal weights are hard to exceed is usual
        # (Clemen, *Combining forecasts: a review and annotated bibliography*, 1989).
        behind = scores[scores.mean(axis=1).argmax()] - scores
        worse = behind.mean(axis=1) > SURE * behind.std(axis=1)
        weight = float(min(WEIGHTS[~worse], key=lambda weight: abs(weight - 0.5)))
        probabilities = {ENCODER: encoder, LINEAR: linear, BLEND: _mix(encoder, linear, weight)}
        predictions = predictions_of(probabilities, dict.fromkeys(probabilities, labels))
        curves = {
            source: fit_confidence(part.confidence, part.correct, part.predicted, encoder.shape[1])
            for source, part in predictions.items()
        }
        return cls(weight, temperatures, curves)

    @property
    def source(self) -> str:
        """What predicts by default: the blend, unless it is one model alone."""
        return {0.0: ENCODER, 1.0: LINEAR}.get(self.weight, BLEND)

    def probabilities(self, logits: Logits, source: str = AUTO) -> np.ndarray:
        """Return calibrated probabilities, float32 (rows, classes), from the logits of the models of `needs`."""
        used, rows = self.used(source), len(next(iter(logits.values())))
        chunks = (slice(start, start + CHUNK) for start in range(0, max(rows, 1), CHUNK))
        return np.concatenate([self._calibrated({m: v[part] for m, v in logits.items()}, used) for part in chunks])

    def _calibrated(self, logits: Logits, used: str) -> np.ndarray:
        shares = [softmax(logits[model] / self.temperatures[model], axis=1) for model in self.needs(used)]
        return recalibrate(_mix(*shares, self.weight) if used == BLEND else shares[0], *self.curves[used])

    def used(self, source: str) -> str:
        """Return what predicts if a source is asked for: the best on the validation rows for `AUTO`."""
        return self.source if source == AUTO else source

    def needs(self, source: str = AUTO) -> tuple[str, ...]:
        """Return the models that a source, one of `SOURCES` or `AUTO` for the best, is computed from."""
        used = self.used(source)
        return (ENCODER, LINEAR) if used == BLEND else (used,)


def apply(blends: Mapping[str, Blend], logits: Mapping[str, Logits], source: str = AUTO) -> dict[str, np.ndarray]:
    """Return the calibrated probabilities of each label, float32 (rows, classes), from logits per model and label.

    Raises `UserError` if they are no numbers, as those of a damaged model.
    """
    shares = {head: blend.probabilities(_of(logits, head), source) for head, blend in blends.items()}
    if not all(np.isfinite(values).all() for values in shares.values()):
        raise UserError("Los modelos de la corrida no dan probabilidades, sino NaN: están dañados. Vuelva a entrenar.")
    return shares


def fit(logits: Mapping[str, Logits], labels: Arrays) -> dict[str, Blend]:
    return {head: Blend.fit(_of(logits, head), truth) for head, truth in labels.items()}


def uncalibrated(blends: Mapping[str, Blend]) -> dict[str, Blend]:
    """Return the same blends of the softmax of the logits as they are."""
    temperatures, curves = dict.fromkeys((ENCODER, LINEAR), 1.0), dict.fromkeys(SOURCES, IDENTITY)
    return {head: replace(blend, temperatures=temperatures, curves=curves) for head, blend in blends.items()}


def write_blends(run: Run, blends: Mapping[str, Blend]) -> None:
    run.write_json(FILE, {head: asdict(blend) for head, blend in blends.items()})


def read_blends(run: Run) -> dict[str, Blend]:
    """Return the blend of each label of a run; raises `UserError` if the file is damaged."""
    try:
        blends = {head: Blend(**fields) for head, fields in read_json(run.path / FILE).items()}
        if list(blends) != list(run.classes) or not all(
            0 <= blend.weight <= 1
            and all(COLDEST <= blend.temperatures[model] <= HOTTEST for model in (ENCODER, LINEAR))
            and _curves(blend).shape == (len(SOURCES), 1 + len(run.classes[head]))
            and (np.abs(_curves(blend)) < tensors.LARGEST).all()
            for head, blend in blends.items()
        ):
            raise ValueError
    except (AttributeError, TypeError, ValueError, LookupError) as error:
        raise UserError(tensors.OTHER_RUN.format(path=run.path / FILE)) from error
    return blends


def _curves(blend: Blend) -> np.ndarray:
    return np.array([[slope, *intercepts] for slope, intercepts in (blend.curves[source] for source in SOURCES)])


def describe_sources(blends: Mapping[str, Blend], source: str = AUTO) -> str:
    """Return, in Spanish, what predicts each label, with the weight of the simple model in a blend."""
    parts = []
    for head, blend in blends.items():
        used = blend.used(source)
        both = f"predicen juntos los dos modelos ({100 * blend.weight:.0f} % el simple)"
        parts.append(f"{head}: {both if used == BLEND else f'predice {MODEL_TITLES[used]}'}")
    return f"{'; '.join(parts)}."


def _of(logits: Mapping[str, Logits], head: str) -> dict[str, np.ndarray]:
    return {model: values[head] for model, values in logits.items()}


def _mix(encoder: np.ndarray, linear: np.ndarray, weight: float) -> np.ndarray:
    return (1 - weight) * encoder + weight * linear


def _scores(labels: np.ndarray, predicted: Mapping[Any, np.ndarray]) -> dict[Any, np.ndarray]:
    """Return the mean of weighted and macro F1 of each model on bootstrap resamples, float64 (RESAMPLES,)."""
    # With the macro F1, no gain comes from giving up the rare classes.
    models = bootstrap(labels, predicted, resamples=RESAMPLES)
    return {model: (scores["f1"] + scores["f1_macro"])[1:] / 2 for model, scores in models.items()}
