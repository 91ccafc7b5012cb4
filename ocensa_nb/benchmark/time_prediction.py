"""What settings would make of these notices here, before training: what is cut, what is trained, how long it takes."""

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

SAMPLED_TEXTS = 20_000  # enough to tell shares and times; a million would be waited for
LONGEST = 512  # tokens; beyond it texts are not told apart
STAND_IN = "minilm"  # whose tokens stand for those of an encoder that is not on this machine


@dataclass(frozen=True)
class TimeEstimate:
    """Seconds of a whole training, and by what share they may be off."""

    seconds: float
    spread: float

    def __str__(self) -> str:
        return f"{duration(self.seconds)} ± {100 * self.spread:.0f} %"


@dataclass(frozen=True)
class Encoder:
    """What is known of an encoder without its weights.

    depth: its layers; positions: the most tokens it takes; here: whether it is on this machine; counted_with: the name
    of the encoder whose tokens `table` holds, the sampled texts uncut.
    """

    name: str
    shape: "PretrainedConfig"
    depth: int
    positions: int
    here: bool
    counted_with: str
    table: TokenTable


class Forecast:
    """Answers for one set of notices; what has been measured or counted is kept."""

    def __init__(self, notices: Notices) -> None:
        self.notices = notices
        every = -(-len(notices.texts) // SAMPLED_TEXTS)
        self._sides = {side: rows[::every] for side, rows in notices.split.items()}
        self._rows = np.concatenate(list(self._sides.values()))
        self._encoders: dict[str, Encoder] = {}
        self._prices: dict[tuple[str, str], pricing.Prices] = {}
        self._models: dict[tuple[str, int], MultiHeadClassifier] = {}  # without weights

    def encoder(self, name: str) -> Encoder:
        """Return what is known of an encoder; raises `UserError` where it is neither here nor in the catalogue."""
        known = self._encoders.get(name)
        if known is None or (not known.here and loading.is_here(name)):
            for kept in (self._prices, self._models):  # of an encoder that has been downloaded since
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
        """Return the share of the texts that are longer than `max_length` tokens."""
        return float((self.encoder(name).table.lengths > max_length).mean())

    def parameters(self, config: TrainConfig) -> tuple[int, int]:
        """Return (trainable, total) parameters, as the training counts them."""
        return count_parameters(self._model(config))

    def memory(self, config: TrainConfig) -> str:
        """Return, in Spanish, the memory that the training of a config takes of this device's, and whether it fits."""
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
        """Tell whether `expected` answers at once; else it measures for some seconds."""
        return self._price_key(config) in self._prices

    def expected(self, config: TrainConfig) -> TimeEstimate:
        """Return how long the training of a config should take, all its epochs and the frozen layers once.

        Measures steps of this encoder's shape the first time it is asked for one in a precision. Raises `UserError` for
        an encoder or a precision that cannot be.
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
        """Return how long it took to measure what the prices of some configs, already told, come from."""
        return sum(self._prices[key].measured for key in {self._price_key(config) for config in configs})

    def _updated(self, config: TrainConfig) -> int:
        """Return the parameters the optimiser moves: those trained, without the tokens that never occur."""
        trainable, _ = self.parameters(config)
        encoder = self.encoder(config.model)
        if config.used_vocabulary and not config.freeze_layers:
            unused = encoder.shape.vocab_size - len(np.unique(encoder.table.ids))
            trainable -= max(0, unused) * encoder.shape.hidden_size
        return trainable

    def _price_key(self, config: TrainConfig) -> tuple[str, str]:
        return config.model, resolve_precision(config.precision, environment.device())
