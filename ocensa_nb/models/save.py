"""The trained classifier of a run folder: the encoder as any Hugging Face tool reads it, and the heads beside it."""

from transformers import PreTrainedTokenizerBase

from ocensa_nb.files.atomic import atomic_write
from ocensa_nb.models import heads_file
from ocensa_nb.models.catalogue import load_encoder, load_tokenizer, quiet
from ocensa_nb.models.classifier import MultiHeadClassifier
from ocensa_nb.models.linear import LinearModel
from ocensa_nb.models.probe import as_user_error, probe
from ocensa_nb.runs.manifest import ENCODER, HEADS, LINEAR
from ocensa_nb.runs.run import Run

WEIGHTS = "linear.safetensors"


def save_model(run: Run, model: MultiHeadClassifier, tokenizer: PreTrainedTokenizerBase) -> None:
    """Write the encoder, the tokenizer, and the shared layer with the heads to a run folder.

    Raises
    ------
    UserError
        If the disk refuses, or the run folder was deleted or taken over.
    """
    run.check_held()
    with atomic_write(run.path / ENCODER) as fresh, quiet():
        model.encoder.save_pretrained(fresh)
        tokenizer.save_pretrained(fresh)
    heads_file.write(run.path / HEADS, model)


def load_model(run: Run) -> tuple[MultiHeadClassifier, PreTrainedTokenizerBase]:
    """Return the trained classifier, in eval mode on the CPU, and its tokenizer.

    Raises
    ------
    UserError
        If weights are missing or not finite, with the names of the tensors, or the encoder does not match its
        tokenizer.
    """
    source = str(run.path / ENCODER)
    tokenizer = load_tokenizer(source, as_saved=True)
    sizes = {head: len(names) for head, names in run.classes.items()}
    encoder = load_encoder(source, tokenizer)
    probe(encoder, tokenizer, run.config.max_length, source)
    with as_user_error(source):
        model = MultiHeadClassifier(encoder, sizes, run.config.dropout)
    heads_file.load_into(model, run.path / HEADS)
    return model.eval(), tokenizer


def save_linear(run: Run, linear: LinearModel) -> None:
    """Write the simple model to a run folder; raises `UserError` as `save_model` does."""
    run.check_held()
    with atomic_write(run.path / LINEAR) as fresh:
        fresh.mkdir()
        linear.write(fresh / WEIGHTS)


def read_linear(run: Run) -> LinearModel:
    """Return the simple model of a run; raises `UserError` if its file is missing, damaged or of other labels."""
    return LinearModel.read(run.path / LINEAR / WEIGHTS, {head: len(names) for head, names in run.classes.items()})
