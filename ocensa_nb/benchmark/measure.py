"""Measure the time, memory and arithmetic of the training step of each technique.

The limit of a step is its FLOPs over the machine's peak plus its bytes over the bandwidth (Williams, Waterman &
Patterson, "Roofline", CACM 52(4), 2009; its products and updates follow each other). Only matrix products, weights,
gradients, moments and inputs count. Data that is still in a cache may exceed the bandwidth.
"""

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from ocensa_nb.benchmark.techniques import Technique, summarize
from ocensa_nb.config import TrainConfig
from ocensa_nb.data.notices import Notices
from ocensa_nb.engine import frozen_features
from ocensa_nb.engine import step as engines
from ocensa_nb.engine.batching import MicroBatch, StepDataset
from ocensa_nb.engine.frozen_features import FrozenFeatures
from ocensa_nb.models.classifier import count_parameters
from ocensa_nb.models.layers import layers
from ocensa_nb.models.tokens import TokenTable, epoch_batches
from ocensa_nb.runtime import logs, machine, timing
from ocensa_nb.runtime.precision import allow_tf32, resolve_precision
from ocensa_nb.runtime.process import seed_everything

if TYPE_CHECKING:
    from transformers import PreTrainedModel

EPOCHS, MODELS = 15, 3  # from the guide: 15 epochs per run, one run for each of three models
QUANTILES = (0.15, 0.5, 0.85)  # of an epoch's batches sorted by length; their mean represents the epoch
PASSES, PASSES_SECONDS = 6, 2.0  # a round repeats its batches up to so often, and starts no repeat after so long
PRICED_ROWS = 256  # sample used to extrapolate the time of the frozen layers to all texts

HALF = ("bf16", "fp16")
CAST = 2 + 4  # bytes per value: fp32 to half precision or back
NORM_AND_SCALING = 4 + 8  # bytes per gradient: read for the norm, read and written to scale it
ADAMW = 16 + 12  # bytes per parameter: gradient, weight and two moments read; weight and moments written


@dataclass
class Variant:
    """A technique, its config, the implementations that replace torch's own, and the measurements of each round."""

    technique: Technique
    config: TrainConfig
    fast: engines.Fast
    seconds: list[float] = field(default_factory=list)
    padded: list[float] = field(default_factory=list)
    loading: list[float] = field(default_factory=list)
    memory: int = 0
    flops: float = 0.0
    traffic: float = 0.0  # bytes
    trainable: int = 0
    build_seconds: float = 0.0


class Bench:
    """Measure variants on the same data and encoder."""

    def __init__(
        self, notices: Notices, tables: dict[int, TokenTable], encoder: "PreTrainedModel", base: TrainConfig
    ) -> None:
        self.notices, self.tables, self.encoder, self.base = notices, tables, encoder, base
        self.device = machine.device()
        train = notices.split["train"]
        lengths = tables[base.max_length].lengths[train]
        batches = [train[rows] for rows in epoch_batches(lengths, base.effective_batch_size, base.seed, 1)]
        full = max(map(len, batches))
        self.batches = sorted(
            (rows for rows in batches if len(rows) == full),
            key=lambda rows: int(tables[base.max_length].lengths[rows].max()),
        )
        self.steps_a_run = EPOCHS * len(batches)

    def rows_of(self, number: int) -> list[np.ndarray]:
        """Return the batches of one round: one short, one medium and one long, different in each round."""
        places = {round(q * (len(self.batches) - 1)) for q in QUANTILES}
        return [self.batches[(place + number) % len(self.batches)] for place in sorted(places)]

    def measure(self, variant: Variant, number: int) -> None:
        """Measure one round of a variant; the first round also measures peak memory, FLOPs and traffic."""
        rounds = self.rows_of(number)
        if variant.config.padding == "max_length" and not variant.config.freeze_layers:
            rounds = rounds[:1]  # all batches are padded to the same width and cost the same
        memory = timing.PeakMemory(self.device)
        engine, batches, rounds = self.build(variant, rounds)
        if not variant.seconds:
            with memory.watch():
                flops = timing.flops_of(lambda: [engine.step(batches[rows]) for rows in rounds])
            variant.flops = flops / len(rounds)
            variant.traffic = sum(sum(traffic(engine, batches[rows]).values()) for rows in rounds) / len(rounds)
            variant.memory = memory.bytes
            variant.trainable = count_parameters(engine.model)[0]
            if isinstance(engine.table, FrozenFeatures):
                self._price_the_cache(variant, engine)
        else:
            engine.step(batches[rounds[-1][:1]])  # one row: allocates the moments and warms up the kernels
        variant.seconds.append(self._seconds(engine, batches, rounds))
        loading = [timing.seconds_of(lambda r=rows: batches[r], self.device) for rows in rounds]
        variant.loading.append(float(np.mean(loading)))
        masks = [micro["attention_mask"] for rows in rounds for micro in batches[rows]]
        variant.padded.append(1 - sum(int(mask.sum()) for mask in masks) / sum(mask.numel() for mask in masks))

    def _seconds(self, engine: engines.Engine, batches: StepDataset, rounds: list[np.ndarray]) -> float:
        """Return the seconds of a step: the mean over the batches of each one's median over the repeats."""
        passes: list[list[float]] = []
        started = time.perf_counter()
        while not passes or (len(passes) < PASSES and time.perf_counter() - started < PASSES_SECONDS):
            passes.append([timing.seconds_of(lambda r=rows: engine.step(batches[r]), self.device) for rows in rounds])
        return float(np.median(passes[1:] or passes, axis=0).mean())

    def _price_the_cache(self, variant: Variant, engine: engines.Engine) -> None:
        """Estimate the seconds and bytes of the features cache of all texts from a sample of all lengths."""
        config = variant.config
        texts, _ = self.tables[config.max_length].unique()
        by_length = np.argsort(texts.lengths, kind="stable")
        some = texts.take(by_length[:: -(-len(texts) // PRICED_ROWS)])
        width = engine.model.encoder.config.hidden_size
        hidden = torch.empty(len(some.ids), width, dtype=engine.table.hidden.dtype)
        arguments = (engine.model, some, some.offsets, config.freeze_layers, engine.precision, hidden)
        seconds = timing.seconds_of(lambda: frozen_features.compute(*arguments), self.device)
        variant.build_seconds = seconds * len(texts.ids) / len(some.ids)
        variant.memory += len(texts.ids) * width * hidden.itemsize - engine.table.hidden.nbytes

    def build(self, variant: Variant, rounds: list[np.ndarray]) -> tuple[engines.Engine, StepDataset, list[np.ndarray]]:
        """Return a new engine for a variant, the dataset of its micro-batches, and the rows of each step."""
        config = variant.config
        seed_everything(config.seed)
        encoder = copy.deepcopy(self.encoder)
        if variant.technique.half:
            del layers(encoder)[len(layers(encoder)) // 2 :]
        table, labels = self.tables[config.max_length], self.notices.labels
        if config.cache_features:  # the steps read only these rows of the cache
            rows = np.concatenate(rounds)
            table, labels = table.take(rows), {head: y[rows] for head, y in labels.items()}
            rounds = np.split(np.arange(len(rows)), np.cumsum([len(part) for part in rounds])[:-1])
        model = engines.classifier(config, self.notices, encoder)
        precision = resolve_precision(config.precision, self.device)
        allow_tf32(precision)
        with logs.only_errors():
            engine = engines.build(config, self.notices, table, model, precision, self.device, fast=variant.fast)
        engine.model.train()
        return engine, StepDataset(engine.table, labels, config.batch_size, config.padding), rounds

    def peaks(self) -> dict[str, float]:
        """Return the measured matrix-product peak, in Gflop/s, in fp32 and in the fastest precision of this machine."""
        names = dict.fromkeys(("fp32", resolve_precision("auto", self.device)))
        return {name: timing.peak_flops(name, self.device) / 1e9 for name in names}

    def bandwidth(self) -> float:
        """Return the measured memory bandwidth, in GB/s."""
        return timing.memory_bandwidth(self.device) / 1e9

    def summary(self, variant: Variant, baseline: Variant) -> dict[str, Any]:
        """Return the measurements of a variant, and what follows from them, as JSON-serializable values."""
        technique, seconds = variant.technique, float(np.median(variant.seconds))
        times = np.divide(baseline.seconds, variant.seconds)
        speedup, low, high = float(np.median(times)), float(times.min()), float(times.max())
        precision = resolve_precision(variant.config.precision, self.device)
        peak = timing.peak_flops(precision, self.device)
        limit = variant.flops / peak + variant.traffic / timing.memory_bandwidth(self.device)
        run = variant.build_seconds + self.steps_a_run * seconds
        return {
            "name": technique.name,
            "title": technique.title,
            "exact": technique.exact,
            "kind": technique.kind,
            "seconds_per_step": seconds,
            "seconds_min": min(variant.seconds),
            "seconds_max": max(variant.seconds),
            "speedup": speedup,
            "speedup_min": low,
            "speedup_max": high,
            "rows_per_second": len(self.batches[0]) / seconds,
            "peak_memory": variant.memory,
            "trainable_parameters": variant.trainable,
            "padded_share": float(np.mean(variant.padded)),
            "precision": precision,
            "gflops_per_step": variant.flops / 1e9,
            "utilisation": variant.flops / seconds / peak,
            "roofline_seconds": limit,
            "roofline_share": limit / seconds,
            "loading_share": float(np.median(np.divide(variant.loading, variant.seconds))),
            "build_seconds": variant.build_seconds,
            "run_seconds": run,
            "models_seconds": MODELS * run,
            "claim": technique.claim,
            "verdict": "" if variant is baseline else summarize(technique, speedup, low, high),
        }


def traffic(engine: engines.Engine, micro_batches: Sequence[MicroBatch]) -> dict[str, float]:
    """Return the bytes that each phase of a step must move, the phases in their order."""
    trained = sum(p.numel() for p in engine.model.parameters() if p.requires_grad)
    cached = isinstance(engine.table, FrozenFeatures)  # the frozen layers do not run
    linear = [p for m in engine.model.modules() if isinstance(m, nn.Linear) for p in m.parameters()]
    # Autocast converts weights once per micro-batch, and the gradients of the trained ones back.
    casts = CAST * len(micro_batches) * (engine.precision in HALF)
    inputs = sum(micro["inputs"].nbytes + micro["attention_mask"].nbytes for micro in micro_batches)
    return {
        "loading": 2 * inputs,
        "forward": casts * sum(p.numel() for p in linear if p.requires_grad or not cached),
        "backward": casts * sum(p.numel() for p in linear if p.requires_grad),
        "clipping": NORM_AND_SCALING * trained,
        "update": ADAMW * trained,
    }
