"""What each optimisation gains on this machine, with this data: alone against the baseline, and stacked on the others.

Every variant makes the very step a training makes (`engine.py`), on the same rows. Rounds are interleaved: each makes
a step of every variant, so that a machine that slows down slows them all, and a ratio is taken inside its round.
"""

import contextlib
import copy
import io
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from ocensa_nb import engine as engines
from ocensa_nb import environment, measure
from ocensa_nb.chance import seed_everything
from ocensa_nb.config import TrainConfig, from_recipe
from ocensa_nb.encoders import check_length, load_encoder, load_tokenizer
from ocensa_nb.estimate import duration
from ocensa_nb.feeding import EffectiveBatches, MicroBatch
from ocensa_nb.model import count_parameters
from ocensa_nb.notices import Notices
from ocensa_nb.precision import resolve_precision
from ocensa_nb.runs import new_folder, write_text
from ocensa_nb.slices import layers
from ocensa_nb.techniques import Technique, alone, ladder, verdict
from ocensa_nb.tokens import TokenTable, encode, epoch_batches
from ocensa_nb.train import load_notices

if TYPE_CHECKING:
    from transformers import PreTrainedModel

EPOCHS, MODELS = 15, 3  # the guide's: a run has 15 epochs, and there is a run for each of three models
QUANTILES = (0.15, 0.5, 0.85)  # of an epoch's batches by length: their mean stands for the epoch


@dataclass(frozen=True)
class Measured:
    """What was measured of one technique.

    seconds_per_step: the median over rounds, from seconds_min to seconds_max; speedup: the median of the baseline's
    seconds over its own, round by round, from speedup_min to speedup_max; peak_memory: bytes of weights, gradients,
    moments and activations; padded_share: of the tokens computed; utilisation: share of the machine's measured
    matrix-product peak; build_seconds: of the trunk cache, once a run; run_seconds, models_seconds: projected, of the
    guide's 15 epochs and of its three models.
    """

    name: str
    title: str
    exact: bool
    kind: str
    seconds_per_step: float
    seconds_min: float
    seconds_max: float
    speedup: float
    speedup_min: float
    speedup_max: float
    rows_per_second: float
    peak_memory: int
    trainable_parameters: int
    padded_share: float
    precision: str
    gflops_per_step: float
    utilisation: float
    build_seconds: float
    run_seconds: float
    models_seconds: float
    claim: tuple[float, float] | None
    verdict: str


@dataclass
class Variant:
    """A technique, the config it makes, and what its steps took, a number a round."""

    technique: Technique
    config: TrainConfig
    plain: bool = True
    seconds: list[float] = field(default_factory=list)
    padded: list[float] = field(default_factory=list)
    memory: int = 0
    flops: float = 0.0
    trainable: int = 0
    build_seconds: float = 0.0


def compare(config: TrainConfig, steps: int = 3) -> dict[str, Any]:
    """Measure every technique on the config's data and encoder, in `steps` rounds.

    Of the config only data, encoder, heads and seed count: the rest is the `baseline` recipe and the techniques.
    Returns `{"ladder": [...], "alone": [...], "machine": {...}, …}` of plain JSON values. Raises `UserError` for data
    or an encoder that cannot be.
    """
    base = baseline_config(config)
    notices = load_notices(base)
    tokenizer = load_tokenizer(base.model, notices.texts)
    tables = {length: encode(notices.texts, tokenizer, length) for length in (base.max_length, 128)}
    encoder = load_encoder(base.model, tokenizer, base.seed)
    check_length(encoder, base.max_length)
    depth = len(layers(encoder))
    torch.set_num_threads(environment.threads())

    stacked = [Variant(technique, rung) for technique, rung in rungs(base, depth)]
    single = [Variant(t, base.replace(**t.changes)) for t in alone(depth, base.batch_size)]
    first_engine = next(place for place, variant in enumerate(stacked) if variant.technique.engine)
    for variant in stacked[first_engine:] + [v for v in single if v.technique.engine]:
        variant.plain = False
    bench = Bench(notices, tables, encoder, base)
    variants = stacked + single
    with tqdm(total=steps * len(variants), desc="Midiendo", unit="paso", dynamic_ncols=True) as bar:
        for number in range(steps):
            for variant in variants:
                bar.set_postfix_str(variant.technique.name)
                bench.measure(variant, number)
                bar.update()
    return {
        "model": base.model,
        "rows": len(notices.texts),
        "rounds": steps,
        "depth": depth,
        "device": bench.device.type,
        "ladder": bench.summary(stacked, stacked[0]),
        "alone": bench.summary(single, stacked[0]),
        "loading_share": bench.loading_share(stacked[-1]),
        "machine": environment.hardware().to_dict()
        | {"versions": environment.versions(), "threads": torch.get_num_threads(), "peak_gflops": bench.peaks()},
    }


def baseline_config(config: TrainConfig) -> TrainConfig:
    """Return the recipe `baseline` on the data, the encoder, the heads and the seed of a config."""
    own = ("model", "data", "heads", "text_fields", "columns", "min_class_count", "val_size", "test_size", "seed")
    kept = {name: getattr(config, name) for name in own}
    return from_recipe("baseline", kept | {"monitor": config.monitor, "cache_trunk": False})


def rungs(base: TrainConfig, depth: int) -> list[tuple[Technique, TrainConfig]]:
    """Return the ladder for an encoder of so many layers: each technique, with its config on top of those before it."""
    found = []
    for technique in ladder(depth):
        base = base.replace(**technique.changes)
        found.append((technique, base))
    return found


class Bench:
    """The data and the encoder that all variants share, and the measuring of one."""

    def __init__(
        self, notices: Notices, tables: dict[int, TokenTable], encoder: "PreTrainedModel", base: TrainConfig
    ) -> None:
        self.notices, self.tables, self.encoder, self.base = notices, tables, encoder, base
        self.device = environment.device()
        train = notices.split["train"]
        lengths = tables[base.max_length].lengths[train]
        batches = [train[rows] for rows in epoch_batches(lengths, base.effective_batch_size, base.seed, 1)]
        self.batches = sorted(
            (rows for rows in batches if len(rows) == len(batches[0])),
            key=lambda rows: int(tables[base.max_length].lengths[rows].max()),
        )
        self.steps_a_run = EPOCHS * len(batches)

    def rows_of(self, number: int) -> list[np.ndarray]:
        """Return the batches of one round: a short one, a middling one and a long one, others in each round."""
        places = {round(q * (len(self.batches) - 1)) for q in QUANTILES}
        return [self.batches[(place + number) % len(self.batches)] for place in sorted(places)]

    def measure(self, variant: Variant, number: int) -> None:
        """Add one round to a variant; its first also counts memory and arithmetic."""
        rounds = self.rows_of(number)
        if variant.config.padding == "max_length" and not variant.config.freeze_layers:
            rounds = rounds[:1]  # padded to the same width they all cost the same
        memory = measure.PeakMemory(self.device)
        engine, batches = self._build(variant, rounds)
        if not variant.seconds:
            with memory.watch():
                engine.step(batches[-1])
            variant.memory = memory.bytes
            variant.flops = float(np.mean([measure.flops_of(lambda b=batch: engine.step(b)) for batch in batches]))
            variant.trainable = count_parameters(engine.model)[0]
        else:
            engine.step(_first_row(batches[-1]))  # the moments are made, and the kernels warm
        seconds = [measure.seconds_of(lambda b=batch: engine.step(b), self.device) for batch in batches]
        variant.seconds.append(float(np.mean(seconds)))
        variant.padded.append(_padded_share(batches))

    def _build(self, variant: Variant, rounds: list[np.ndarray]) -> tuple[engines.Engine, list[list[MicroBatch]]]:
        """Return a fresh engine of a variant, and the micro-batches of each of its steps."""
        config = variant.config
        seed_everything(config.seed)
        encoder = copy.deepcopy(self.encoder)
        if variant.technique.half:
            del layers(encoder)[len(layers(encoder)) // 2 :]
        table, labels = self.tables[config.max_length], self.notices.labels
        if config.cache_trunk:  # what the cache holds of other rows is not read here
            rows = np.concatenate(rounds)
            table, labels = table.take(rows), {head: y[rows] for head, y in labels.items()}
            rounds = np.split(np.arange(len(rows)), np.cumsum([len(part) for part in rounds])[:-1])
        model = engines.classifier(config, self.notices, encoder)
        precision = resolve_precision(config.precision, self.device)
        with contextlib.redirect_stdout(io.StringIO()):
            started = time.perf_counter()
            engine = engines.build(config, self.notices, table, model, precision, self.device, plain=variant.plain)
            seconds = time.perf_counter() - started
        if config.cache_trunk:
            variant.build_seconds = seconds * len(self.notices.texts) / len(table)
        engine.model.train()
        batches = EffectiveBatches(engine.table, labels, config.batch_size, config.padding)
        return engine, [batches[rows] for rows in rounds]

    def loading_share(self, fastest: Variant) -> float:
        """Return what preparing a batch takes of the fastest step: the most that loading it elsewhere could save."""
        batches = EffectiveBatches(
            self.tables[self.base.max_length], self.notices.labels, self.base.batch_size, "dynamic"
        )
        seconds = [measure.seconds_of(lambda r=rows: batches[r], self.device) for rows in self.batches[:50]]
        return float(np.median(seconds)) / float(np.median(fastest.seconds))

    def peaks(self) -> dict[str, float]:
        """Return the machine's matrix-product peak, in Gflop/s, in fp32 and in the precision that is fastest here."""
        names = dict.fromkeys(("fp32", resolve_precision("auto", self.device)))
        return {name: measure.peak_flops(name, self.device) / 1e9 for name in names}

    def summary(self, variants: list[Variant], baseline: Variant) -> list[dict[str, Any]]:
        """Return what was measured of each variant, as plain values."""
        rows = len(self.batches[0])
        found = []
        for variant in variants:
            technique = variant.technique
            seconds = float(np.median(variant.seconds))
            times = np.divide(baseline.seconds, variant.seconds)
            speedup, low, high = float(np.median(times)), float(times.min()), float(times.max())
            precision = resolve_precision(variant.config.precision, self.device)
            run = variant.build_seconds + self.steps_a_run * seconds
            measured = Measured(
                name=technique.name,
                title=technique.title,
                kind=technique.kind,
                exact=technique.exact,
                seconds_per_step=seconds,
                seconds_min=min(variant.seconds),
                seconds_max=max(variant.seconds),
                speedup=speedup,
                speedup_min=low,
                speedup_max=high,
                rows_per_second=rows / seconds,
                peak_memory=variant.memory,
                trainable_parameters=variant.trainable,
                padded_share=float(np.mean(variant.padded)),
                precision=precision,
                gflops_per_step=variant.flops / 1e9,
                utilisation=variant.flops / seconds / measure.peak_flops(precision, self.device),
                build_seconds=variant.build_seconds,
                run_seconds=run,
                models_seconds=MODELS * run,
                claim=technique.claim,
                verdict=verdict(technique, speedup, low, high) if variant is not baseline else "",
            )
            found.append(asdict(measured))
        return found


def table(results: Mapping[str, Any], which: str = "ladder") -> pd.DataFrame:
    """Return the ladder, or the techniques `alone`, as the user reads them: a row a technique."""
    columns = {
        "técnica": lambda m: m["title"],
        "tipo": lambda m: m["kind"],
        "s por paso": lambda m: f"{m['seconds_per_step']:.3g}",
        "veces": lambda m: f"{m['speedup']:.1f} ({m['speedup_min']:.1f} a {m['speedup_max']:.1f})",
        "guía": lambda m: "–" if m["claim"] is None else "×" + " a ".join(f"{c:g}" for c in dict.fromkeys(m["claim"])),
        "filas/s": lambda m: f"{m['rows_per_second']:.1f}",
        "memoria (GiB)": lambda m: f"{m['peak_memory'] / 2**30:.2f}",
        "entrenables (M)": lambda m: f"{m['trainable_parameters'] / 1e6:.1f}",
        "relleno": lambda m: f"{m['padded_share']:.0%}",
        "uso del equipo": lambda m: f"{m['utilisation']:.0%}",
        "15 épocas": lambda m: duration(m["run_seconds"]),
        "tres modelos": lambda m: duration(m["models_seconds"]),
    }
    return pd.DataFrame([{name: show(m) for name, show in columns.items()} for m in results[which]])


def verdicts(results: Mapping[str, Any]) -> list[str]:
    """Return what there is to say of each technique of the guide, a Spanish sentence each."""
    said = [f"{m['title']}. {m['verdict']}" for m in results["alone"]]
    best, loading = results["ladder"][-1], results["loading_share"]
    gpu = (
        "medido en esta GPU" if results["device"] == "cuda" else "aquí no hay: ábralo en Colab con una T4 y mídalo allí"
    )
    return [
        *said,
        f"GPU en la nube (la guía: 5 a 10 veces). Este cuaderno mide la máquina en la que corre; {gpu}.",
        f"DataLoader con workers. Preparar un batch es el {loading:.1%} del paso más rápido: más no podrían ahorrar.",
        "Menos épocas y parada anticipada (la guía: cerca de 40 %). Ahorran épocas enteras, no segundos por paso; lo "
        "que cuestan lo dice el F1 de validación de su corrida.",
        f"Todo junto. {best['speedup']:.0f} veces el punto de partida por paso ({best['speedup_min']:.0f} a "
        f"{best['speedup_max']:.0f}): 15 épocas en {duration(best['run_seconds'])} en lugar de "
        f"{duration(results['ladder'][0]['run_seconds'])}.",
    ]


def save(results: Mapping[str, Any], out: str | Path) -> Path:
    """Write the results, their tables and their figures to a new folder and return it."""
    from ocensa_nb import plots

    folder = new_folder(out)
    if "quality" in results:
        plots.f1_against_time(results["quality"]).savefig(folder / "quality.png", dpi=110)
    write_text(folder / "compare.json", json.dumps(results, ensure_ascii=False, indent=2) + "\n")
    for which in ("ladder", "alone"):
        table(results, which).to_csv(folder / f"{which}.csv", index=False, encoding="utf-8-sig")
        plots.speedups(results, which).savefig(folder / f"{which}.png", dpi=110)
    write_text(folder / "verdicts.txt", "\n".join(verdicts(results)) + "\n")
    return folder


def _padded_share(batches: list[list[MicroBatch]]) -> float:
    masks = [micro["attention_mask"] for batch in batches for micro in batch]
    return 1 - sum(int(mask.sum()) for mask in masks) / sum(mask.numel() for mask in masks)


def _first_row(batch: list[MicroBatch]) -> list[MicroBatch]:
    micro = batch[0]
    labels = {head: y[:1] for head, y in micro["labels"].items()}
    return [{"inputs": micro["inputs"][:1], "attention_mask": micro["attention_mask"][:1], "labels": labels}]
