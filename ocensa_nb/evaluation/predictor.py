"""Inference: logits of texts, predicted classes and probabilities."""

import logging
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import torch

from ocensa_nb.engine.frozen_features import SAMPLE
from ocensa_nb.engine.inference import logits
from ocensa_nb.engine.oom_retry import CLOSE, explained
from ocensa_nb.errors import UserError, unknown
from ocensa_nb.evaluation.blend import AUTO, ENCODER, LINEAR, SOURCES, apply, read_blends
from ocensa_nb.models.save import load_model, read_linear
from ocensa_nb.models.tokens import encode
from ocensa_nb.runs.run import Run
from ocensa_nb.runtime import machine
from ocensa_nb.runtime.device import to_device
from ocensa_nb.runtime.distributed import World
from ocensa_nb.runtime.precision import replacement_note, scoring_precision

logger = logging.getLogger(__name__)


def gather_rows(world: World, found: Mapping[str, np.ndarray], mine: np.ndarray, rows: int) -> dict[str, np.ndarray]:
    """Return the values of all rows, float32 (rows, classes) per head, from the shares of several processes."""
    whole = {head: np.zeros((rows, values.shape[1]), np.float32) for head, values in found.items()}
    for head, values in found.items():
        whole[head][mine] = values
    world.sum([torch.from_numpy(values) for values in whole.values()])
    return whole


def score_texts(run: Run, texts: Sequence[str], title: str) -> dict[str, np.ndarray]:
    """Return the fp32 logits (texts, classes) of each head of a finished run; a repeated text is computed once."""
    model, tokenizer = load_model(run)
    device = machine.device()
    torch.set_num_threads(machine.threads())
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


def logits_by_model(
    run: Run, texts: Sequence[str], title: str, models: Collection[str]
) -> dict[str, dict[str, np.ndarray]]:
    """Return the logits of the models of a run, float32 (texts, classes) per head; see `score_texts`."""
    found = {}
    if ENCODER in models:
        found[ENCODER] = score_texts(run, texts, title)
    if LINEAR in models:
        found[LINEAR] = read_linear(run).logits(texts)
    return found


def class_probabilities(run: Run, texts: Sequence[str], title: str, source: str = AUTO) -> dict[str, np.ndarray]:
    """Return the calibrated probabilities, float32 (texts, classes), of each head of a finished run.

    Parameters
    ----------
    run, texts, title
        As in `score_texts`.
    source
        `encoder`, `linear`, `blend`, or `auto`: for each head, the best of them on the validation rows.

    Raises
    ------
    UserError
        If the source does not exist, or as `score_texts` does.
    """
    require_source(source)
    blends = read_blends(run)
    models = {model for blend in blends.values() for model in blend.needs(source)}
    return apply(blends, logits_by_model(run, texts, title, models), source)


def require_source(source: str) -> None:
    """Raise `UserError` if a source does not exist."""
    if source not in (AUTO, *SOURCES):
        raise UserError(unknown("El modelo", source, (AUTO, *SOURCES)))


def predictions(scores: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the class with the highest logit or probability of each row, int64 (rows,), per head."""
    return {head: values.argmax(axis=1) for head, values in scores.items()}
