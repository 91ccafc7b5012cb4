"""Measure what each optimisation gains on this machine and data, individually and cumulatively.

The limit of a step is its FLOPs over the machine's peak plus its bytes over the bandwidth (Williams, Waterman &
Patterson, "Roofline", CACM 52(4), 2009; its products and updates follow each other). Only matrix products, weights,
gradients, moments and inputs count. Data that is still in a cache may exceed the bandwidth.
"""

import copy
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from ocensa_nb.benchmark.techniques import SHORTER, Setting, Technique, cumulative, individual, promised, summarize
from ocensa_nb.config import TrainConfig, baseline_of
from ocensa_nb.data.notices import Notices
from ocensa_nb.engine import frozen_features
from ocensa_nb.engine import step as engines
from ocensa_nb.engine.batching import MicroBatch, StepDataset
from ocensa_nb.engine.frozen_features import FrozenFeatures
from ocensa_nb.errors import UserError, duration, num
from ocensa_nb.files.atomic import write_json, write_text
from ocensa_nb.files.write import write_table
from ocensa_nb.models.catalogue import load_encoder, load_tokenizer
from ocensa_nb.models.classifier import count_parameters
from ocensa_nb.models.layers import layers
from ocensa_nb.models.tokenizer_checks import check_length
from ocensa_nb.models.tokens import TokenTable, encode, epoch_batches
from ocensa_nb.runtime import logs, machine, timing
from ocensa_nb.runtime.precision import allow_tf32, resolve_precision
from ocensa_nb.runtime.process import seed_everything
from ocensa_nb.training.train import load_notices

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


def compare(config: TrainConfig, steps: int = 3) -> dict[str, Any]:
    """Measure every technique on the config's data and encoder, each with the training step on the same rows.

    Parameters
    ----------
    config
        Only its data, encoder, heads and seed are used; the rest comes from the `baseline` recipe and the techniques.
    steps
        Number of rounds, at least 1.

    Returns
    -------
    dict
        JSON-serializable: `ladder` has the cumulative measurements, `alone` the individual ones (`Bench.summary`).

    Raises
    ------
    UserError
        If `steps` is less than 1, or the data or the encoder is invalid.
    """
    if steps < 1:
        raise UserError(f"steps = {steps}: debe ser 1 como mínimo.")
    bench, setting, stacked, single = prepare(config)
    variants = stacked + single
    with logs.progress(None, "Midiendo", "paso", total=steps * len(variants), delay=0, leave=True) as bar:
        # Each round runs every variant once, so a machine that slows down affects all of them.
        for number in range(steps):
            for variant in variants:
                bar.set_postfix_str(variant.technique.name)
                bench.measure(variant, number)
                bar.update()
    fastest = resolve_precision("auto", bench.device)
    return {
        "model": bench.base.model,
        "rows": len(bench.notices.texts),
        "rounds": steps,
        **asdict(setting),
        "ladder": [bench.summary(variant, stacked[0]) for variant in stacked],
        "alone": [bench.summary(variant, stacked[0]) for variant in single],
        "machine": {
            **machine.hardware().to_dict(),
            "versions": machine.versions(),
            "threads": torch.get_num_threads(),
            "peak_gflops": {name: timing.peak_flops(name, bench.device) / 1e9 for name in ("fp32", fastest)},
            "bandwidth_gb": timing.memory_bandwidth(bench.device) / 1e9,
        },
    }


def prepare(config: TrainConfig) -> tuple["Bench", Setting, list[Variant], list[Variant]]:
    """Return what to measure on, which techniques apply, and the variants of `ladder` and of `alone`."""
    base = baseline_of(config)
    notices = load_notices(base)
    tokenizer = load_tokenizer(base.model, notices.texts)
    tables = {length: encode(notices.texts, tokenizer, length) for length in (base.max_length, SHORTER)}
    encoder = load_encoder(base.model, tokenizer, base.seed)
    check_length(encoder, base.max_length)
    torch.set_num_threads(machine.threads())

    device = machine.device()
    setting = Setting(
        depth=len(layers(encoder)),
        cuts=bool((tables[base.max_length].lengths > SHORTER).any()),
        halves=resolve_precision("auto", device) != "fp32",
        device=device.type,
    )
    stacked = [Variant(*rung) for rung in cumulative(base, setting)]
    single = [Variant(t, base.replace(**t.changes), t.fast) for t in individual(setting, base.batch_size)]
    return Bench(notices, tables, encoder, base), setting, stacked, single


class Bench:
    """Measure variants on the same data and encoder."""

    def __init__(
        self, notices: Notices, tables: dict[int, TokenTable], encoder: "PreTrainedModel", base: TrainConfig
    ) -> None:
        self.notices, self.tables, self.encoder, self.base = notices, tables, encoder, base
        self.device = machine.device()
        train, lengths = notices.split["train"], tables[base.max_length].lengths
        batches = [train[rows] for rows in epoch_batches(lengths[train], base.effective_batch_size, base.seed, 1)]
        full = max(map(len, batches))
        self.batches = sorted(
            (rows for rows in batches if len(rows) == full), key=lambda rows: int(lengths[rows].max())
        )
        self.steps_a_run = EPOCHS * len(batches)

    def rows_of(self, number: int) -> list[np.ndarray]:
        """Return the batches of one round: one short, one medium and one long, different in each round."""
        positions = {round(q * (len(self.batches) - 1)) for q in QUANTILES}
        return [self.batches[(position + number) % len(self.batches)] for position in sorted(positions)]

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
        arguments = (engine.model, some, some.offsets, engine.model.frozen, engine.precision, hidden)
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
        multiple = machine.width_multiple(self.device)
        return engine, StepDataset(engine.table, labels, config.batch_size, config.padding, multiple=multiple), rounds

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
            **{name: getattr(technique, name) for name in ("name", "title", "exact", "kind", "claim")},
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


def table(results: Mapping[str, Any], which: str = "ladder") -> pd.DataFrame:
    """Return the measurements of `ladder` or `alone` as formatted text, with column names in Spanish."""
    columns = {
        "técnica": lambda m: m["title"],
        "tipo": lambda m: m["kind"],
        "s por paso": lambda m: num(m["seconds_per_step"], 3, form="g"),
        "veces": lambda m: f"{num(m['speedup'], 1)} ({num(m['speedup_min'], 1)} a {num(m['speedup_max'], 1)})",
        "guía": lambda m: "–" if m["claim"] is None else "×" + promised(m["claim"]),
        "filas/s": lambda m: num(m["rows_per_second"], 1),
        "memoria (GiB)": lambda m: num(m["peak_memory"] / 2**30, 2),
        "entrenables (M)": lambda m: num(m["trainable_parameters"] / 1e6, 1),
        "relleno": lambda m: f"{m['padded_share']:.0%}",
        "uso de la máquina": lambda m: f"{m['utilisation']:.0%}",
        "s por paso, límite": lambda m: num(m["roofline_seconds"], 3, form="g"),
        "del límite": lambda m: f"{m['roofline_share']:.0%}",
        "15 épocas": lambda m: duration(m["run_seconds"]),
        "tres modelos": lambda m: duration(m["models_seconds"]),
    }
    return pd.DataFrame([{name: show(m) for name, show in columns.items()} for m in results[which]])


def summaries(results: Mapping[str, Any]) -> list[str]:
    """Return one Spanish sentence per technique of the guide, from the results of `compare`."""
    best = results["ladder"][-1]
    loading = max(m["loading_share"] for m in results["ladder"])
    gpu = "medido en esta GPU" if results["device"] == "cuda" else "aquí no hay GPU: mídalo en Colab con una T4"
    return [
        *(f"{m['title']}. {m['verdict']}" for m in results["alone"]),
        f"GPU en la nube (la guía: 5 a 10 veces). Se mide la máquina en uso; {gpu}.",
        "DataLoader con varios procesos (workers). Preparar un batch toma como mucho el "
        f"{num(100 * loading, 2)} % de un paso: no pueden ahorrar más que eso.",
        "Menos épocas y parada anticipada (la guía: cerca del 40 %). Ahorran épocas enteras, no segundos por paso; lo "
        "que cuestan lo dice el F1 de validación de su corrida.",
        f"Todo junto. {best['speedup']:.0f} veces el punto de partida por paso ({best['speedup_min']:.0f} a "
        f"{best['speedup_max']:.0f}): 15 épocas en {duration(best['run_seconds'])} en lugar de "
        f"{duration(results['ladder'][0]['run_seconds'])}.",
    ]


def write(results: Mapping[str, Any], folder: Path) -> None:
    write_json(folder / "compare.json", results)
    for which in ("ladder", "alone"):
        write_table(table(results, which), folder / f"{which}.csv")
    write_text(folder / "verdicts.txt", "\n".join(summaries(results)) + "\n")
