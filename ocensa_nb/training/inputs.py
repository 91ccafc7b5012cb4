"""What a training starts from: tokens, encoder and classifier, each checked before a folder is made."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ocensa_nb.config import TrainConfig
from ocensa_nb.data.notices import Notices
from ocensa_nb.engine import step
from ocensa_nb.engine.frozen_features import FrozenFeatures
from ocensa_nb.engine.memory import memory_note
from ocensa_nb.engine.step import Engine
from ocensa_nb.models import tokenizer_checks
from ocensa_nb.models.catalogue import load_encoder, load_tokenizer
from ocensa_nb.models.classifier import MultiHeadClassifier, count_parameters, describe_parameters, sha256
from ocensa_nb.models.tokens import TokenTable, encode
from ocensa_nb.paths import SAMPLE_DATA
from ocensa_nb.runs import array_cache
from ocensa_nb.runtime import machine
from ocensa_nb.runtime.distributed import World
from ocensa_nb.runtime.precision import allow_tf32, replacement_note, require_compiler, resolve_precision
from ocensa_nb.runtime.process import seed_everything

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Inputs:
    """The classifier and the tokens of its texts, on the CPU; `hashes` has the SHA-256 of encoder and tokens."""

    device: torch.device
    tokenizer: "PreTrainedTokenizerBase"
    table: TokenTable
    model: MultiHeadClassifier
    hashes: dict[str, str]


def load_inputs(config: TrainConfig, notices: Notices, world: World) -> Inputs:
    """Tokenise the notices and load the encoder, the same in all processes; raises `UserError` if they do not suit."""
    device = machine.device()
    torch.set_num_threads(machine.threads())
    with world.agreed():
        seed_everything(config.seed)
        tokenizer = load_tokenizer(config.model, notices.texts)
        table = encode(notices.texts, tokenizer, config.max_length)
        unknown = tokenizer_checks.unknown_share(table, tokenizer)
        logger.info(tokenizer_checks.describe(unknown, notices.texts, tokenizer))
        tokenizer_checks.check_unknown_share(unknown, config.model)
        encoder = load_encoder(config.model, tokenizer, config.seed)
        tokenizer_checks.probe(encoder, tokenizer, config.max_length, config.model)
        hashes = {"encoder": sha256(encoder.named_parameters()), "tokens": table.sha256()}
        model = step.classifier(config, notices, encoder)
        if config.compile:
            require_compiler(device)
    world.require_same(
        lambda: [config.fingerprint(), notices.fingerprint, hashes],
        "Los procesos no tienen los mismos ajustes, avisos o codificador. Use los mismos en todas las máquinas.",
    )
    return Inputs(device, tokenizer, table, model, hashes)


def describe_inputs(config: TrainConfig, notices: Notices, inputs: Inputs) -> dict[str, Any]:
    trainable, total = count_parameters(inputs.model)
    return {
        "data": {
            "path": str(Path(config.data or SAMPLE_DATA).resolve()),
            "fingerprint": notices.fingerprint,
            "columns": notices.report.columns,
            "filled": notices.report.filled,
            "values": notices.report.values,
            "fields": list(notices.known_fields),
            "merged": notices.report.merged(),
            "split": notices.report.split,
            "class_rows": {head: rows.tolist() for head, rows in notices.class_rows().items()},
        },
        "inputs": inputs.hashes,
        "device": inputs.device.type,
        "precision": resolve_precision(config.precision, inputs.device),
        "frozen_layers": inputs.model.frozen,
        "parameters": {"trainable": trainable, "total": total},
    }


def build_engine(config: TrainConfig, notices: Notices, inputs: Inputs, precision: str, world: World) -> Engine:
    """Build the engine in a resolved precision, and say what it trains and what memory that needs."""
    model, device = inputs.model, inputs.device
    allow_tf32(precision)
    if note := replacement_note(config.precision, precision, device):
        logger.warning(note)
    logger.info(describe_parameters(model))
    logger.info(memory_note(config, model, inputs.table.lengths, precision, device))
    cache = array_cache.default_folder()
    engine = step.build(config, notices, inputs.table, model, precision, device, cache, world=world)
    if not world.is_first:
        seed_everything(config.seed + world.rank)  # dropout differs from that of the first process
    return engine


def describe_features(engine: Engine) -> dict[str, Any] | None:
    table = engine.table
    if not isinstance(table, FrozenFeatures):
        return None
    return {"key": table.key, "bytes": table.hidden.nbytes, "reused": table.reused}
