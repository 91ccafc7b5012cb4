"""Define the measured techniques: what each changes, whether it is exact, and the gain stated in the guide."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ocensa_nb.config import TrainConfig
from ocensa_nb.engine.step import Fast
from ocensa_nb.errors import num

SHORTER = 128  # tokens: the guide's shorter max_length
EXACT, GIVEN_FREEZING, TRADE = "exacta", "exacta si se congela", "compromiso"


@dataclass(frozen=True)
class Technique:
    """One change to a training."""

    name: str
    title: str
    kind: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    fast: Fast = Fast.NONE
    half: bool = False
    claim: tuple[float, float] | None = None

    @property
    def exact(self) -> bool:
        """Whether the learned function is the same with and without the technique."""
        return self.kind != TRADE


@dataclass(frozen=True)
class Setting:
    """What decides which techniques apply."""

    depth: int
    cuts: bool
    halves: bool
    device: str


BASELINE = Technique("baseline", "Punto de partida: fp32, todo a 256 tokens", EXACT)


def ladder(setting: Setting) -> list[Technique]:
    """Return the techniques in cumulative order, from `BASELINE`: exact ones, trade-offs, then the features cache."""
    dropout = Technique("block_dropout", "Dropout con máscaras de 16 bits", EXACT, fast=Fast.BLOCK_DROPOUT)
    kind = TRADE if setting.cuts else EXACT
    shorter = Technique("max_length", f"max_length = {SHORTER}", kind, {"max_length": SHORTER}, claim=(2.0, 2.0))
    mixed = Technique("mixed_precision", "Precisión mixta", TRADE, {"precision": "auto"}, claim=(2.0, 3.0))
    return [
        BASELINE,
        Technique("dynamic_padding", "Relleno dinámico, por largos", EXACT, {"padding": "dynamic"}),
        Technique("cls_only", "Última capa solo para [CLS]", EXACT, {"cls_only": True}),
        Technique("fused_adamw", "AdamW fusionado", EXACT, fast=Fast.FUSED_ADAMW),
        *([dropout] if setting.device == "cpu" else []),
        shorter,
        *([mixed] if setting.halves else []),
        _freeze(setting.depth),
        Technique("feature_cache", "Capas congeladas, una sola vez", GIVEN_FREEZING, {"cache_features": True}),
    ]


def cumulative(base: TrainConfig, setting: Setting) -> list[tuple[Technique, TrainConfig, Fast]]:
    """Return each technique of `ladder` with a config and implementations that apply it and all previous ones."""
    rungs, fast = [], Fast.NONE
    for technique in ladder(setting):
        base, fast = base.replace(**technique.changes), fast | technique.fast
        rungs.append((technique, base, fast))
    return rungs


def individual(setting: Setting, batch_size: int) -> list[Technique]:
    micro = next(size for size in range(max(1, batch_size // 4), 0, -1) if batch_size % size == 0)
    steps = batch_size // micro
    accumulated = {"batch_size": micro, "gradient_accumulation_steps": steps}
    cached = {**_freeze(setting.depth).changes, "cache_features": True}
    return [
        *(technique for technique in ladder(setting)[1:] if technique.name != "feature_cache"),
        Technique("feature_cache", "Congelar y calcular lo congelado una sola vez", GIVEN_FREEZING, cached),
        Technique("gradient_accumulation", f"Acumular gradientes, {micro} × {steps}", EXACT, accumulated),
        Technique("smaller_model", "Un codificador con la mitad de las capas", TRADE, half=True, claim=(2.0, 3.0)),
    ]


def summarize(technique: Technique, speedup: float, low: float, high: float) -> str:
    """Return a Spanish sentence that compares the measured speedup of a technique with the guide's."""
    if low >= 0.9 and high <= 1.1:
        gain = "aquí apenas cambia el tiempo"
    elif low <= 1 <= high:
        gain = f"aquí la ganancia no se distingue del ruido ({num(low, 2)} a {num(high, 2)} veces)"
    elif speedup < 1:
        gain = f"aquí tarda {num(1 / speedup, 2)} veces lo que tardaba"
    else:
        gain = f"aquí va {num(speedup, 1 if speedup >= 10 else 2)} veces más rápido"
    costs = {EXACT: "el resultado es el mismo", GIVEN_FREEZING: "el mismo resultado que congelando"}
    cost = costs.get(technique.kind, "cambia el resultado: mire el F1")
    if technique.claim is None:
        return f"{gain.capitalize()}; {cost}."
    least, most = technique.claim
    against = "menos que" if high < least else "más que" if low > most else "en línea con"
    return f"{gain.capitalize()}, {against} las {promised(technique.claim)} veces de la guía; {cost}."


def promised(claim: Sequence[float]) -> str:
    """Return the guide's gain, such as `1,5 a 2`."""
    return " a ".join(num(end, 6, form="g") for end in dict.fromkeys(claim))


def _freeze(depth: int) -> Technique:
    """Return the technique that freezes all layers but two, as the guide does with BETO's twelve."""
    kept = max(1, depth - 2)
    return Technique("freeze", f"Congelar {kept} de {depth} capas", TRADE, {"freeze_layers": kept}, claim=(1.5, 2.0))
