"""F1 after reviewing the notices that `review` selects, against as many at random.

    python -m tests.benchmarks.review --data avisos.csv

A part of the labels is hidden. A model is trained on the others, the rows to review are chosen with its probabilities,
their labels are shown, and the same model is trained again. Test rows are the same for all, and are never chosen.
"""

import argparse
import dataclasses
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from ocensa_nb.config import TrainConfig, from_recipe
from ocensa_nb.data import notices
from ocensa_nb.data.canonical import normalise
from ocensa_nb.data.notices import Notices
from ocensa_nb.evaluation.metrics import flat_metrics, predicted_classes
from ocensa_nb.evaluation.predictor import Predictor
from ocensa_nb.files.notice_file import NoticeFile
from ocensa_nb.models.linear import LinearModel, count_ngrams
from ocensa_nb.review.review import select, uncertainty
from ocensa_nb.runtime import logs
from ocensa_nb.training import train

ENCODER = {"freeze_layers": 5, "learning_rate": 4e-4, "head_learning_rate": 1e-3}
SIDES = {"val_size": 0.1, "test_size": 0.2}


class Linear:
    """The simple model, with a temperature per label from the validation rows."""

    def __init__(self, data: Notices, rows: np.ndarray) -> None:
        self.data = data
        sizes = {head: len(names) for head, names in data.classes.items()}
        self.model = LinearModel.fit(
            count_ngrams(_texts(data, rows)), {head: y[rows] for head, y in data.labels.items()}, sizes
        )

    def logits(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        return self.model.logits(_texts(self.data, rows))

    def probabilities(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        val = self.data.split["val"]
        known, found = self.logits(val), self.logits(rows)
        return {
            head: softmax(found[head] * _sharpness(known[head], self.data.labels[head][val]), axis=1) for head in found
        }


class Encoder:
    """The embedded encoder; its probabilities are uncalibrated."""

    def __init__(self, data: Notices, rows: np.ndarray, config: TrainConfig, scored: np.ndarray) -> None:
        with tempfile.TemporaryDirectory() as folder:
            own = dataclasses.replace(data, split={**data.split, "train": rows})
            run = train.fit(config.replace(out=f"{folder}/run"), own)
            found = Predictor.load(run).logits(_texts(data, scored), models=(ENCODER,))[ENCODER]
        self._place = {int(row): place for place, row in enumerate(scored)}
        self._scores = found

    def logits(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        places = [self._place[int(row)] for row in rows]
        return {head: values[places] for head, values in self._scores.items()}

    def probabilities(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        return {head: softmax(values, axis=1) for head, values in self.logits(rows).items()}


def experiment(file: NoticeFile, seed: int, start: int, count: int, encoder: Mapping[str, object] | None) -> list[dict]:
    """Return the test metrics before a review, and after a random and a selected one."""
    recipe = from_recipe("cpu", {**SIDES, **(encoder or {}), "seed": seed})
    data = notices.prepare(file, recipe)
    pool = np.random.default_rng(seed).permutation(data.split["train"])
    labelled, hidden = pool[:start], pool[start:]

    def fitted(rows: np.ndarray, *scored: np.ndarray) -> Linear | Encoder:
        if encoder is None:
            return Linear(data, rows)
        return Encoder(data, rows, recipe, np.concatenate([data.split["test"], *scored]))

    first = fitted(labelled, hidden)
    known = {normalise(text) for text in _texts(data, labelled)}
    chosen = select(_texts(data, hidden), uncertainty(first.probabilities(hidden)), count, known)
    reviewed = {"at random": hidden[: len(chosen)], "selected": hidden[chosen]}  # the hidden rows are in random order
    found = [{"seed": seed, "review": "none", "rows": start, **_scores(first, data)}]
    for how, rows in reviewed.items():
        model = fitted(np.concatenate([labelled, rows]))
        found.append({"seed": seed, "review": how, "rows": start + len(rows), **_scores(model, data)})
    return found


def summary(results: pd.DataFrame) -> pd.DataFrame:
    """Return mean ± standard deviation over the seeds of each metric, and of the difference to a random review."""
    names = [name for name in results if name not in ("seed", "review", "rows")]
    by = {how: part.set_index("seed")[names] for how, part in results.groupby("review", sort=False)}
    by["selected - at random"] = by["selected"] - by["at random"]
    return pd.DataFrame(
        {how: [f"{part[name].mean():+.4f} ± {part[name].std():.4f}" for name in names] for how, part in by.items()},
        index=names,
    )


def _texts(data: Notices, rows: np.ndarray) -> list[str]:
    return [data.texts[row] for row in rows]


def _sharpness(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the factor of the logits with the least negative log-likelihood: one over the temperature."""

    def loss(exponent: float) -> float:
        return -log_softmax(logits * np.exp(exponent), axis=1)[np.arange(len(labels)), labels].mean()

    return float(np.exp(minimize_scalar(loss, bounds=(-4, 5), method="bounded").x))


def _scores(model: Linear | Encoder, data: Notices) -> Mapping[str, float]:
    rows = data.split["test"]
    labels = {head: y[rows] for head, y in data.labels.items()}
    flat = flat_metrics(labels, predicted_classes(model.logits(rows)))
    chosen = {name: value for name, value in flat.items() if name.endswith(("_f1", "_f1_macro"))}
    means = {kind: float(np.mean([flat[f"{head}_{kind}"] for head in labels])) for kind in ("f1", "f1_macro")}
    return chosen | means


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="labelled CSV or XLSX")
    parser.add_argument("--start", type=int, default=1_000, help="rows whose labels are known before the review")
    parser.add_argument("--rows", type=int, default=200, help="rows that are reviewed")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--encoder", action="store_true", help="the embedded encoder instead of the simple model")
    parser.add_argument("--epochs", type=int, default=8, help="of the encoder")
    parser.add_argument("--monitor", default="f1", help="of the encoder")
    parser.add_argument("--json", type=Path, help="new file for every value")
    given = parser.parse_args()
    logs.configure()
    file = notices.read(given.data)
    own = {**ENCODER, "epochs": given.epochs, "patience": given.epochs, "monitor": given.monitor}
    results: list[dict] = []
    for seed in range(given.seeds):
        results += experiment(file, seed, given.start, given.rows, own if given.encoder else None)
        print(pd.DataFrame(results[-3:]).round(4).to_string(index=False), flush=True)
    print(summary(pd.DataFrame(results)).to_string())
    if given.json:
        given.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
