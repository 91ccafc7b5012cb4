"""Inference: logits of rows and texts, predicted classes and probabilities."""

import logging
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from ocensa_nb.encoders.token_table import TokenTable, encode, sorted_batches
from ocensa_nb.engine.frozen_features import SAMPLE, FeatureTable
from ocensa_nb.engine.oom_retry import CLOSE, Pieces, explained
from ocensa_nb.models.classifier import MultiHeadClassifier
from ocensa_nb.models.saved_model import load_model
from ocensa_nb.runtime import environment
from ocensa_nb.runtime.device import to_device
from ocensa_nb.runtime.logs import progress
from ocensa_nb.runtime.precision import autocast, replacement_note, scoring_precision
from ocensa_nb.storage.run_folder import Run

logger = logging.getLogger(__name__)

SCORING_BATCH = 64


def logits(
    model: MultiHeadClassifier,
    table: TokenTable | FeatureTable,
    rows: np.ndarray,
    precision: str,
    padding: str = "dynamic",
    title: str | None = None,
) -> dict[str, np.ndarray]:
    """Return the fp32 logits (rows, classes) of each head, in the order of `rows`.

    The mode of the model, training or eval, is restored.

    Parameters
    ----------
    model
        The classifier.
    table
        Its inputs: token ids or cached features.
    rows
        The rows of the table to score, int64 (rows,).
    precision
        A resolved precision, not `auto`.
    padding
        `dynamic` or `max_length`.
    title
        Title of the progress bar; None for no bar.
    """
    device = next(model.parameters()).device
    found = {
        head: torch.empty(len(rows), layers[-1].out_features, device=device) for head, layers in model.heads.items()
    }

    def score(batch: np.ndarray) -> None:
        inputs, mask, places = to_device([*table.batch(rows[batch], padding), torch.from_numpy(batch)], device)
        for head, values in model(inputs, mask).items():
            found[head].index_copy_(0, places, values)

    score_in_pieces = Pieces(score)
    batches = list(sorted_batches(table.lengths[rows], SCORING_BATCH))
    training = model.training
    model.eval()
    try:
        with torch.inference_mode(), autocast(precision, device):
            for batch in batches if title is None else progress(batches, title, "batch"):
                score_in_pieces(batch)
    finally:
        model.train(training)
    return {head: values.cpu().numpy() for head, values in found.items()}  # one wait for the device, at the end


def score_texts(run: Run, texts: Sequence[str], title: str) -> dict[str, np.ndarray]:
    """Return the fp32 logits (texts, classes) of each head of a finished run; a repeated text is computed once.

    Parameters
    ----------
    run
        A finished run.
    texts
        The texts, as the training composes them.
    title
        Title of the progress bar.

    Raises
    ------
    UserError
        If the model of the run is damaged or does not fit in memory.
    """
    model, tokenizer = load_model(run)
    device = environment.device()
    torch.set_num_threads(environment.threads())
    precision = scoring_precision(run.metadata["precision"], device)
    if note := replacement_note(run.metadata["precision"], precision, device):
        logger.warning(note)
    distinct, entry = encode(texts, tokenizer, run.config.max_length).unique()
    with explained("los pesos del codificador", CLOSE):
        model.to(device)
    if run.config.cls_only:
        with explained(SAMPLE, CLOSE):
            model.shorten(*to_device(distinct.sample(), device))
    found = logits(model, distinct, np.arange(len(distinct)), precision, title=title)
    return {head: values[entry] for head, values in found.items()}


def predictions(logits: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the most probable class of each row, int64 (rows,), per head."""
    return {head: values.argmax(axis=1) for head, values in logits.items()}


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Return the softmax of logits (rows, classes), stable for large logits."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)
