"""Save and load the models of a run folder: the encoder in Hugging Face's format, the heads, the linear model."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ocensa_nb.files import tensors
from ocensa_nb.files.atomic import atomic_write
from ocensa_nb.models.catalogue import load_encoder, load_tokenizer, quiet
from ocensa_nb.models.checks import NOT_FINITE, refuse_tensors
from ocensa_nb.models.classifier import MultiHeadClassifier
from ocensa_nb.models.linear import LinearModel
from ocensa_nb.models.tokenizer_checks import encoder_errors, probe
from ocensa_nb.runs.manifest import ENCODER, HEADS, LINEAR
from ocensa_nb.runs.run import Run

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

WEIGHTS = "linear.safetensors"


def save_model(run: Run, model: MultiHeadClassifier, tokenizer: "PreTrainedTokenizerBase") -> None:
    """Write the classifier and its tokenizer; raises `UserError` if the disk refuses, or the folder is not held."""
    run.check_held()
    with atomic_write(run.path / ENCODER) as folder, quiet():
        model.encoder.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    tensors.write(run.path / HEADS, _head_weights(model))


def load_model(run: Run) -> "tuple[MultiHeadClassifier, PreTrainedTokenizerBase]":
    """Return the trained classifier, in eval mode on the CPU, and its tokenizer.

    Raises `UserError` if weights are missing or not finite, or the encoder does not match its tokenizer.
    """
    source = str(run.path / ENCODER)
    tokenizer = load_tokenizer(source)
    encoder = load_encoder(source, tokenizer)
    probe(encoder, tokenizer, run.config.max_length, source)
    with encoder_errors(source):
        model = MultiHeadClassifier(encoder, _sizes(run), run.config.dropout)
    _load_heads(model, run.path / HEADS)
    return model.eval(), tokenizer


def save_linear(run: Run, linear: LinearModel) -> None:
    run.check_held()
    with atomic_write(run.path / LINEAR) as folder:
        folder.mkdir()
        linear.write(folder / WEIGHTS)


def read_linear(run: Run) -> LinearModel:
    return LinearModel.read(run.path / LINEAR / WEIGHTS, _sizes(run))


def _sizes(run: Run) -> dict[str, int]:
    return {head: len(names) for head, names in run.classes.items()}


def _head_weights(model: MultiHeadClassifier) -> dict[str, torch.Tensor]:
    return {name: values for name, values in model.state_dict().items() if not name.startswith("encoder.")}


def _load_heads(model: MultiHeadClassifier, path: Path) -> None:
    expected, (stored, _) = _head_weights(model), tensors.read(path)
    both = expected.keys() & stored.keys()
    alike = {n for n in both if (expected[n].shape, expected[n].dtype) == (stored[n].shape, stored[n].dtype)}
    faults = {
        "faltan": expected.keys() - stored.keys(),
        "sobran": stored.keys() - expected.keys(),
        "tienen otra forma u otro tipo": both - alike,
        NOT_FINITE: {name for name in alike if not torch.isfinite(stored[name]).all()},
    }
    advice = "Recupere una copia de la carpeta o vuelva a entrenar"
    refuse_tensors(faults, f"Los pesos de «{path}» no son los de esta corrida", advice)
    model.load_state_dict(stored, strict=False)  # the encoder has its weights
