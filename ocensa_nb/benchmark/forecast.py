"""Predict, before training, the truncation, trainable parameters, memory and time of some settings."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from ocensa_nb.benchmark import throughput
from ocensa_nb.benchmark.throughput import Cancelled, Progress
from ocensa_nb.config import TrainConfig
from ocensa_nb.data.notices import Notices
from ocensa_nb.engine import step
from ocensa_nb.engine.memory import memory_note
from ocensa_nb.errors import duration
from ocensa_nb.models import catalogue, tokenizer_checks
from ocensa_nb.models.classifier import MultiHeadClassifier, count_parameters
from ocensa_nb.models.layers import layers
from ocensa_nb.models.tokens import TokenTable, encode, epoch_batches, rounded_up, scoring_batches
from ocensa_nb.runtime import machine
from ocensa_nb.runtime.machine import width_multiple
from ocensa_nb.runtime.precision import resolve_precision

if TYPE_CHECKING:
    from transformers import PretrainedConfig

SAMPLED_TEXTS = 20_000  # enough to estimate fractions and times; encoding a million texts is slow
LONGEST = 512  # tokens; longer texts count as this long
STAND_IN = "minilm"  # its tokenizer is used if the encoder's is not on this machine


@dataclass(frozen=True)
class TimeEstimate:
    """Predicted seconds of a full training, and their relative uncertainty."""

    seconds: float
    spread: float

    def __str__(self) -> str:
        return f"{duration(self.seconds)} ± {100 * self.spread:.0f} %"


@dataclass(frozen=True)
class Encoder:
    """Description of an encoder, available without its weights."""

    name: str
    shape: "PretrainedConfig"
    depth: int  # layers
    positions: int  # maximum number of tokens
    here: bool  # whether it is on this machine
    counted_with: str  # the encoder whose tokenizer made `table`
    table: TokenTable  # of the sampled texts, truncated at `LONGEST`


class Forecast:
    """Predictions for one set of notices; measurements and token counts are cached."""

    def __init__(self, notices: Notices) -> None:
        self.notices = notices
        every = -(-len(notices.texts) // SAMPLED_TEXTS)
        self._sides = {side: rows[::every] for side, rows in notices.split.items()}
        self._rows = np.concatenate(list(self._sides.values()))
        self._encoders: dict[str, Encoder] = {}
        self._measured: dict[tuple[str, str], throughput.Throughput] = {}
        self._counted: dict[tuple, dict[str, throughput.PassFlops]] = {}
        self._models: dict[tuple[str, int], MultiHeadClassifier] = {}  # on the meta device

    def encoder(self, name: str) -> Encoder:
        """Return the description of an encoder; raise `UserError` if it is neither here nor in the catalogue."""
        known = self._encoders.get(name)
        if known is None or (not known.here and catalogue.is_here(name)):
            here = catalogue.is_here(name)
            counted_with = name if here else STAND_IN
            texts = [self.notices.texts[row] for row in self._rows]
            tokenizer = catalogue.load_tokenizer(counted_with, texts)
            shape = catalogue.architecture(name, tokenizer)
            if known and known.shape.to_dict() != shape.to_dict():  # downloaded since, and not what the catalogue says
                for stored in (self._measured, self._counted, self._models):
                    for key in [key for key in stored if key[0] == name]:
                        del stored[key]
            depth = len(layers(catalogue.untrained(shape, "meta")))
            table = encode(texts, tokenizer, LONGEST)
            positions = tokenizer_checks.positions(shape)
            self._encoders[name] = Encoder(name, shape, depth, positions, here, counted_with, table)
        return self._encoders[name]

    def cut_share(self, name: str, max_length: int) -> float:
        """Return the fraction of the texts that are longer than `max_length` tokens."""
        return float((self.encoder(name).table.lengths > max_length).mean())

    def parameters(self, config: TrainConfig) -> tuple[int, int]:
        """Return the number of (trainable, total) parameters, counted as in training."""
        return count_parameters(self._model(config))

    def frozen(self, config: TrainConfig) -> int:
        """Return the number of frozen layers."""
        return self._model(config).frozen

    def memory(self, config: TrainConfig) -> str:
        """Return a Spanish note with the memory a training needs on this device and whether it fits."""
        device = machine.device()
        lengths = np.minimum(self.encoder(config.model).table.lengths, config.max_length)
        precision = resolve_precision(config.precision, device)
        return memory_note(config, self._model(config), lengths, precision, device, len(self.notices.texts))

    def _model(self, config: TrainConfig) -> MultiHeadClassifier:
        key = config.model, config.freeze_layers
        if key not in self._models:
            empty = catalogue.untrained(self.encoder(config.model).shape, "meta")
            self._models[key] = step.classifier(config, self.notices, empty)
        return self._models[key]

    def is_measured(self, config: TrainConfig) -> bool:
        """Return whether `expected` answers at once, after `measure`."""
        return self._key(config) in self._measured and _structure(config) in self._counted

    def measure(
        self, config: TrainConfig, on_progress: Progress = lambda share: None, cancelled: Cancelled = lambda: False
    ) -> bool:
        """Measure the throughput and count the FLOPs that `expected` needs, in some seconds; False if it was cancelled.

        Call it from one thread at a time. Raises `UserError` if the encoder or the precision is unavailable.
        """
        encoder, key = self.encoder(config.model), self._key(config)
        if key not in self._measured:
            rates = throughput.measure(encoder.shape, key[1], config, self.notices, on_progress, cancelled)
            if rates is None:
                return False
            self._measured[key] = rates
        self._flops(config, "training")
        return True

    def expected(self, config: TrainConfig) -> TimeEstimate:
        """Return the predicted time of a training: all epochs, and the frozen layers once if they are cached.

        Raises `KeyError` before `measure`, and `UserError` if the encoder or the precision is unavailable.
        """
        encoder, rates = self.encoder(config.model), self._measured[self._key(config)]
        lengths = np.minimum(encoder.table.lengths, config.max_length)
        ends = np.cumsum([len(rows) for rows in self._sides.values()])[:-1]
        sides = dict(zip(self._sides, np.split(lengths, ends), strict=True))
        scoring = {side: self._forward_seconds(config, "scoring", sides[side]) for side in ("val", "test")}
        seconds = config.epochs * (self.epoch(config, sides["train"]) + scoring["val"]) + sum(scoring.values())
        if _cached(config):
            seconds += self._forward_seconds(config, "frozen", lengths)
        return TimeEstimate(len(self.notices.texts) / len(self._rows) * seconds, rates.spread)

    def epoch(self, config: TrainConfig, lengths: np.ndarray) -> float:
        """Return the predicted seconds of the training steps of one epoch over texts of `lengths` tokens."""
        rates = self._measured[self._key(config)]
        widths, shapes, steps = _widths(config, lengths), [], 0
        for rows in epoch_batches(lengths, config.effective_batch_size, config.seed, 1):
            steps += 1
            for start in range(0, len(rows), config.batch_size):
                micro = widths[rows[start : start + config.batch_size]]
                shapes.append((len(micro), micro.max()))
        work = self._flops(config, "training").work(np.array(shapes))
        trainable, _ = self.parameters(config)
        return float((work @ rates.training).sum()) + steps * trainable * rates.update

    def measured_seconds(self, *configs: TrainConfig) -> float:
        """Return the seconds spent measuring for some configs; `expected` must have been called for each."""
        return sum(self._measured[key].measured for key in {self._key(config) for config in configs})

    def _forward_seconds(self, config: TrainConfig, kind: str, lengths: np.ndarray) -> float:
        """Return the predicted seconds of a forward pass, `scoring` or `frozen`, over texts of `lengths` tokens."""
        widths = _widths(config, lengths)
        shapes = np.array([(len(rows), widths[rows].max()) for rows in scoring_batches(widths, machine.device())])
        work = self._flops(config, kind).work(shapes)
        return float((work @ self._measured[self._key(config)].scoring).sum())

    def _flops(self, config: TrainConfig, kind: str) -> throughput.PassFlops:
        """Return the work of a pass with the layers and inputs of a config: `training`, `scoring` or `frozen`."""
        key = _structure(config)
        if key not in self._counted:
            encoder = self.encoder(config.model)
            model = step.classifier(config, self.notices, catalogue.untrained(encoder.shape, "meta")).to("meta")
            if config.cls_only:
                sample = torch.ones((1, 8), dtype=torch.int64, device="meta")
                model.shorten(sample, sample)
            passes, features = {}, 0
            if _cached(config):
                model.accept_features_from(model.frozen)
                features = encoder.shape.hidden_size
                frozen = model.frozen_forward(model.frozen)
                passes["frozen"] = throughput.count(model.eval(), backward=False, forward=frozen)
            passes["scoring"] = throughput.count(model.eval(), features, backward=False)
            passes["training"] = throughput.count(model.train(), features)
            self._counted[key] = passes
        return self._counted[key][kind]

    def _key(self, config: TrainConfig) -> tuple[str, str]:
        return config.model, resolve_precision(config.precision, machine.device())


def _structure(config: TrainConfig) -> tuple[str, int, bool, bool]:
    return config.model, config.freeze_layers, config.cls_only, _cached(config)


def _cached(config: TrainConfig) -> bool:
    return bool(config.cache_features and config.freeze_layers)


def _widths(config: TrainConfig, lengths: np.ndarray) -> np.ndarray:
    fixed = config.padding == "max_length" and not _cached(config)
    return np.full(len(lengths), config.max_length) if fixed else rounded_up(lengths, width_multiple(machine.device()))
