"""Predict, before training, the truncation, trainable parameters, memory and time of some settings."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ocensa_nb.benchmark import pricing
from ocensa_nb.config import TrainConfig
from ocensa_nb.data.notices import Notices
from ocensa_nb.encoders import loading
from ocensa_nb.encoders.layer_slice import layers
from ocensa_nb.encoders.token_table import TokenTable, encode
from ocensa_nb.engine import step
from ocensa_nb.engine.memory_estimate import memory_note
from ocensa_nb.models.classifier import MultiHeadClassifier, count_parameters
from ocensa_nb.runtime import environment
from ocensa_nb.runtime.precision import resolve_precision
from ocensa_nb.runtime.timing import duration

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
    """Description of an encoder, available without its weights.

    Attributes
    ----------
    name
        Name or path of the encoder.
    shape
        Its transformers configuration.
    depth
        Number of layers.
    positions
        Maximum number of tokens.
    here
        Whether it is on this machine.
    counted_with
        Name of the encoder whose tokenizer made `table`.
    table
        Tokens of the sampled texts, truncated at `LONGEST`.
    """

    name: str
    shape: "PretrainedConfig"
    depth: int
    positions: int
    here: bool
    counted_with: str
    table: TokenTable


class Forecast:
    """Predictions for one set of notices; measurements and token counts are cached."""

    def __init__(self, notices: Notices) -> None:
        self.notices = notices
        every = -(-len(notices.texts) // SAMPLED_TEXTS)
        self._sides = {side: rows[::every] for side, rows in notices.split.items()}
        self._rows = np.concatenate(list(self._sides.values()))
        self._encoders: dict[str, Encoder] = {}
        self._prices: dict[tuple[str, str], pricing.Prices] = {}
        self._models: dict[tuple[str, int], MultiHeadClassifier] = {}  # on the meta device

    def encoder(self, name: str) -> Encoder:
        """Return the description of an encoder; raise `UserError` if it is neither here nor in the catalogue."""
        known = self._encoders.get(name)
        if known is None or (not known.here and loading.is_here(name)):
            for kept in (self._prices, self._models):  # stale: the encoder has been downloaded since
                for key in [key for key in kept if key[0] == name]:
                    del kept[key]
            here = loading.is_here(name)
            counted_with = name if here else STAND_IN
            texts = [self.notices.texts[row] for row in self._rows]
            tokenizer = loading.load_tokenizer(counted_with, texts)
            shape = loading.architecture(name, tokenizer)
            depth = len(layers(loading.untrained(shape, "meta")))
            table = encode(texts, tokenizer, LONGEST)
            positions = loading.positions(shape)
            self._encoders[name] = Encoder(name, shape, depth, positions, here, counted_with, table)
        return self._encoders[name]

    def cut_share(self, name: str, max_length: int) -> float:
        """Return the fraction of the texts that are longer than `max_length` tokens."""
        return float((self.encoder(name).table.lengths > max_length).mean())

    def parameters(self, config: TrainConfig) -> tuple[int, int]:
        """Return the number of (trainable, total) parameters, counted as in training."""
        return count_parameters(self._model(config))

    def memory(self, config: TrainConfig) -> str:
        """Return a Spanish note with the memory a training needs on this device and whether it fits."""
        device = environment.device()
        lengths = np.minimum(self.encoder(config.model).table.lengths, config.max_length)
        precision = resolve_precision(config.precision, device)
        return memory_note(config, self._model(config), lengths, precision, device, len(self.notices.texts))

    def _model(self, config: TrainConfig) -> MultiHeadClassifier:
        key = config.model, config.freeze_layers
        if key not in self._models:
            empty = loading.untrained(self.encoder(config.model).shape, "meta")
            self._models[key] = step.classifier(config, self.notices, empty)
        return self._models[key]

    def is_priced(self, config: TrainConfig) -> bool:
        """Return whether `expected` needs no measurement; otherwise it measures for some seconds."""
        return self._price_key(config) in self._prices

    def measure(self, config: TrainConfig, on_progress: Callable[[float], None], cancelled: Callable[[], bool]) -> bool:
        """Measure what `expected` needs for a config; call it from one thread at a time.

        Parameters
        ----------
        config
            Settings of the training.
        on_progress
            Called with the fraction done, from 0 to 1.
        cancelled
            Returns whether to stop; called between measured steps.

        Returns
        -------
        bool
            False if it was cancelled.

        Raises
        ------
        UserError
            If the encoder or the precision is unavailable.
        """
        if cancelled():
            return False
        self.expected(config)
        on_progress(1.0)
        return True

    def expected(self, config: TrainConfig) -> TimeEstimate:
        """Return the predicted time of a training: all epochs, and the frozen layers once if they are cached.

        The first call for an encoder and a precision measures steps of that encoder's shape.

        Parameters
        ----------
        config
            Settings of the training.

        Returns
        -------
        TimeEstimate
            Seconds and relative uncertainty.

        Raises
        ------
        UserError
            If the encoder or the precision is unavailable.
        """
        encoder, key = self.encoder(config.model), self._price_key(config)
        if key not in self._prices:
            self._prices[key] = pricing.measure(encoder.shape, key[1], config, self.notices)
        prices = self._prices[key]
        lengths = np.minimum(encoder.table.lengths, config.max_length)
        ends = np.cumsum([len(rows) for rows in self._sides.values()])[:-1]
        sides = dict(zip(self._sides, np.split(lengths, ends), strict=True))
        whole = len(self.notices.texts) / len(self._rows)

        epoch = prices.epoch(config, encoder.depth, sides["train"], self._updated(config))
        scoring = {side: prices.scoring(config, encoder.depth, sides[side]) for side in ("val", "test")}
        seconds = config.epochs * (epoch + scoring["val"]) + sum(scoring.values())
        if config.cache_trunk and config.freeze_layers:
            seconds += prices.trunk(config, lengths)
        return TimeEstimate(whole * seconds, prices.spread)

    def measured_seconds(self, *configs: TrainConfig) -> float:
        """Return the seconds spent measuring for some configs; `expected` must have been called for each."""
        return sum(self._prices[key].measured for key in {self._price_key(config) for config in configs})

    def _updated(self, config: TrainConfig) -> int:
        """Return the number of parameters the optimiser updates: the trainable ones minus unused tokens."""
        trainable, _ = self.parameters(config)
        encoder = self.encoder(config.model)
        if config.used_vocabulary and not config.freeze_layers:
            unused = encoder.shape.vocab_size - len(np.unique(encoder.table.ids))
            trainable -= max(0, unused) * encoder.shape.hidden_size
        return trainable

    def _price_key(self, config: TrainConfig) -> tuple[str, str]:
        return config.model, resolve_precision(config.precision, environment.device())
