"""A small classifier, random batches, and an engine to train it."""

import torch

from ocensa_nb.config import TrainConfig
from ocensa_nb.engine.optimizer import build_optimizer
from ocensa_nb.engine.step import Engine, Objective
from ocensa_nb.models.classifier import MultiHeadClassifier

HEADS = {"modo": 0.1, "causa": 0.6, "prioridad": 0.3}
SIZES = {"modo": 5, "causa": 9, "prioridad": 4}
NO_SCALING = torch.amp.GradScaler("cpu", enabled=False)


def small_model(seed=0, layers=2):
    from transformers import BertConfig, BertModel

    torch.manual_seed(seed)
    shape = {"hidden_size": 16, "num_hidden_layers": layers, "num_attention_heads": 2, "intermediate_size": 32}
    return MultiHeadClassifier(BertModel(BertConfig(vocab_size=60, **shape), add_pooling_layer=False), SIZES, 0.1)


def batch(rows, seed=0):
    draw = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, 60, (rows, 11), generator=draw)
    lengths = torch.randint(3, 12, (rows, 1), generator=draw)
    labels = {head: torch.randint(0, size, (rows,), generator=draw) for head, size in SIZES.items()}
    return {"inputs": ids, "attention_mask": (torch.arange(11) < lengths).long(), "labels": labels}


def split_batch(whole, size):
    """Split a batch into micro-batches of `size` rows; the last one may be smaller."""
    rows = len(whole["inputs"])
    parts = []
    for start in range(0, rows, size):
        labels = {head: y[start : start + size] for head, y in whole["labels"].items()}
        parts.append(
            {key: whole[key][start : start + size] for key in ("inputs", "attention_mask")} | {"labels": labels}
        )
    return parts


def objective(label_smoothing=0.0, **class_weights):
    weights = {head: class_weights.get(head, torch.ones(size)) for head, size in SIZES.items()}
    return Objective(HEADS, weights, label_smoothing)


def engine(model, objective, scaler=NO_SCALING, precision="fp32", optimizer=None, max_grad_norm=1.0):
    optimizer = optimizer or build_optimizer(model, TrainConfig())
    cpu = torch.device("cpu")
    return Engine(model, None, objective, optimizer, scaler, precision, max_grad_norm, cpu, model)


def gradients(model):
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
