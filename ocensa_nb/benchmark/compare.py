"""Measure the speedup of each optimisation on this machine and data, individually and cumulatively."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from ocensa_nb.benchmark.measure import Bench, Variant
from ocensa_nb.benchmark.techniques import SHORTER, Setting, cumulative, individual
from ocensa_nb.config import TrainConfig, baseline_of
from ocensa_nb.errors import UserError
from ocensa_nb.files.atomic import write_json, write_text
from ocensa_nb.files.write import write_table
from ocensa_nb.models.catalogue import load_encoder, load_tokenizer
from ocensa_nb.models.layers import layers
from ocensa_nb.models.tokenizer_checks import check_length
from ocensa_nb.models.tokens import encode
from ocensa_nb.runtime import machine
from ocensa_nb.runtime.logs import progress
from ocensa_nb.runtime.precision import resolve_precision
from ocensa_nb.runtime.timing import duration
from ocensa_nb.training.train import load_notices


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
    with progress(None, "Midiendo", "paso", total=steps * len(variants), delay=0, leave=True) as bar:
        # Each round runs every variant once, so a machine that slows down affects all of them.
        for number in range(steps):
            for variant in variants:
                bar.set_postfix_str(variant.technique.name)
                bench.measure(variant, number)
                bar.update()
    return {
        "model": bench.base.model,
        "rows": len(bench.notices.texts),
        "rounds": steps,
        **asdict(setting),
        "ladder": [bench.summary(variant, stacked[0]) for variant in stacked],
        "alone": [bench.summary(variant, stacked[0]) for variant in single],
        "machine": machine.hardware().to_dict()
        | {
            "versions": machine.versions(),
            "threads": torch.get_num_threads(),
            "peak_gflops": bench.peaks(),
            "bandwidth_gb": bench.bandwidth(),
        },
    }


def prepare(config: TrainConfig) -> tuple[Bench, Setting, list[Variant], list[Variant]]:
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


def table(results: Mapping[str, Any], which: str = "ladder") -> pd.DataFrame:
    """Return the measurements of `ladder` or `alone` as formatted text, with column names in Spanish."""
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
        "uso de la máquina": lambda m: f"{m['utilisation']:.0%}",
        "s por paso, límite": lambda m: f"{m['roofline_seconds']:.3g}",
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
        f"{loading:.2%} de un paso: no pueden ahorrar más que eso.",
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
