"""Predict with a finished run: the probabilities of each label for some texts."""

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import numpy as np
import pandas as pd
import torch

from ocensa_nb.config import AUTO, ENCODER, LINEAR, SOURCES
from ocensa_nb.engine.frozen_features import SAMPLE
from ocensa_nb.engine.inference import logits
from ocensa_nb.engine.out_of_memory import CLOSE, explained, releases_memory
from ocensa_nb.errors import UserError, unknown
from ocensa_nb.evaluation.blend import Blend, apply, read_blends
from ocensa_nb.evaluation.suggestion import TARGET, Evidence, Rows, Suggestion
from ocensa_nb.models.classifier import MultiHeadClassifier
from ocensa_nb.models.linear import LinearModel
from ocensa_nb.models.save import load_model, read_linear
from ocensa_nb.models.tokens import encode
from ocensa_nb.runs.run import Run
from ocensa_nb.runtime import machine
from ocensa_nb.runtime.distributed import ALONE, World
from ocensa_nb.runtime.logs import progress
from ocensa_nb.runtime.machine import to_device
from ocensa_nb.runtime.precision import replacement_note, scoring_precision

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

CHUNK = 512  # rows predicted at a time: bounds the memory

EXAMPLES = ("bomba", "Fuga de aceite por el sello mecánico de la bomba principal de la estación.")


class Scored(Protocol):
    """The chunks that were scored before, so that an interrupted prediction can continue."""

    def read(self, chunk: int, rows: int) -> dict[str, np.ndarray] | None:
        """Return the probabilities of a chunk, float32 (rows, classes) per label; None if it was not scored yet."""

    def write(self, chunk: int, probabilities: dict[str, np.ndarray]) -> None:
        """Keep the probabilities of a chunk."""


@dataclass(frozen=True)
class Predictor:
    """The models of a finished run, each loaded when it is first needed, and their blend.

    `Predictor.load(run).probabilities(["fuga de aceite"])["modo"]` is an array of shape (1, classes).
    """

    run: Run
    blends: dict[str, Blend]

    @classmethod
    def load(cls, run: Run) -> "Predictor":
        """Return the predictor of a finished run; raises `UserError` if its blend is damaged."""
        return cls(run, read_blends(run))

    def probabilities(
        self,
        texts: Sequence[str],
        fields: pd.DataFrame | None = None,
        source: str = AUTO,
        world: World = ALONE,
        scored: Scored | None = None,
    ) -> dict[str, np.ndarray]:
        """Return the calibrated probabilities, float32 (texts, classes), of each label; a repeated text costs nothing.

        Parameters
        ----------
        fields
            The canonical values of the columns that the run may read, a row per text, as `NoticeFile.fields`; None if
            they are not known.
        source
            `encoder`, `linear`, `blend`, or `auto`: for each label, the best of them on the validation rows.
        world
            Processes that share the texts: each computes a part, and all return all.
        scored
            The chunks of the same texts that need no computation, and where the others are kept.

        Raises
        ------
        UserError
            If the source does not exist, a model is damaged, or the memory is insufficient.
        """
        require_source(source)
        models = {model for blend in self.blends.values() for model in blend.needs(source)}
        shares = {head: np.zeros((len(texts), len(names)), np.float32) for head, names in self.run.classes.items()}
        # Texts of one length are together, with their repeats, so that a batch has little padding.
        repeats = pd.factorize(np.asarray(texts, dtype=object))[0]
        rows = world.share(np.lexsort((repeats, [len(text) for text in texts])))
        with world.agreed():
            starts = range(0, len(rows), CHUNK)
            for chunk, start in enumerate(starts if scored else progress(starts, "Prediciendo", "parte")):
                part = rows[start : start + CHUNK]
                values = scored.read(chunk, len(part)) if scored else None
                if values is None:
                    of_part = None if fields is None else fields.iloc[part]
                    values = apply(self.blends, self.logits([texts[row] for row in part], of_part, models), source)
                    if scored:
                        scored.write(chunk, values)
                for head in shares:
                    shares[head][part] = values[head]
        world.sum([torch.from_numpy(values) for values in shares.values()])
        return shares

    def logits(
        self,
        texts: Sequence[str],
        fields: pd.DataFrame | None = None,
        models: Collection[str] = (ENCODER, LINEAR),
        title: str | None = None,
    ) -> dict[str, dict[str, np.ndarray]]:
        """Return the logits of models, float32 (texts, classes), per model and label; see `probabilities`."""
        by_model = {}
        if ENCODER in models:
            by_model[ENCODER] = self._encoder_logits(texts, title)
        if LINEAR in models:
            by_model[LINEAR] = self.linear.logits(texts, fields)
        return by_model

    def masked_logits(self, pieces: Sequence[str]) -> dict[str, np.ndarray]:
        """Return the encoder's logits of a text, its pieces joined by spaces, and of the text with each of them masked.

        float32 (1 + pieces, classes), per label; a piece of several words becomes one mask token.
        """
        _, tokenizer, _ = self._encoder
        mask = tokenizer.mask_token or tokenizer.unk_token or ""
        masked = [[*pieces[:number], mask, *pieces[number + 1 :]] for number in range(len(pieces))]
        return self._encoder_logits([" ".join(words) for words in (pieces, *masked)], "Explicando")

    def _encoder_logits(self, texts: Sequence[str], title: str | None) -> dict[str, np.ndarray]:
        model, tokenizer, precision = self._encoder
        distinct, entry = encode(texts, tokenizer, self.run.config.max_length).unique()
        of_distinct = logits(model, distinct, np.arange(len(distinct)), precision, title=title)
        return {head: values[entry] for head, values in of_distinct.items()}

    @cached_property
    @releases_memory
    def _encoder(self) -> "tuple[MultiHeadClassifier, PreTrainedTokenizerBase, str]":
        model, tokenizer = load_model(self.run)
        device = machine.device()
        torch.set_num_threads(machine.threads())
        precision = scoring_precision(self.run.metadata["precision"], device)
        if note := replacement_note(self.run.metadata["precision"], precision, device):
            logger.warning(note)
        with explained("los pesos del codificador", CLOSE):
            model.to(device)
        if self.run.config.cls_only:
            examples = encode(EXAMPLES, tokenizer, self.run.config.max_length)
            with explained(SAMPLE, CLOSE):
                model.shorten(*to_device(examples.sample(), device))
        return model, tokenizer, precision

    def suggestions(self, source: str = AUTO, target: float = TARGET) -> dict[str, tuple[Suggestion, Rows]]:
        """Return what is suggested for each label, and the test rows of the run that it is measured on."""
        return self._evidence.suggestions(self.blends, self.run.class_rows, source, target)

    @cached_property
    def _evidence(self) -> Evidence:
        return Evidence.read(self.run)

    @cached_property
    def linear(self) -> LinearModel:
        return read_linear(self.run)


def require_source(source: str) -> None:
    if source not in (AUTO, *SOURCES):
        raise UserError(unknown("El modelo", source, (AUTO, *SOURCES)))
