"""Define the measured techniques: what each changes, whether it is exact, and the gain stated in the guide."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ocensa_nb.config import TrainConfig

SHORTER = 128  # tokens: the guide's shorter max_length
EXACT, GIVEN_FREEZING, TRADE = "exacta", "exacta si se congela", "compromiso"


@dataclass(frozen=True)
class Technique:
    """One change to a training.

    Attributes
    ----------
    name
        Identifier.
    title
        Spanish text for tables and figures.
    kind
        `EXACT`, `GIVEN_FREEZING` or `TRADE`.
    changes
        Fields of `TrainConfig` and their values.
    engine
        Whether it also needs our own optimiser loop and dropout.
    half
        Whether it uses the encoder with half of its layers.
    claim
        Speedup stated in the guide, as (minimum, maximum); None if the guide states none.
    """

    name: str
    title: str
    kind: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    engine: bool = False
    half: bool = False
    claim: tuple[float, float] | None = None

    @property
    def exact(self) -> bool:
        """Whether the learned function is the same with and without the technique."""
        return self.kind != TRADE


BASELINE = Technique("baseline", "Punto de partida: fp32, todo a 256 tokens", EXACT)


def ladder(depth: int, cuts: bool, halves: bool) -> list[Technique]:
    """Return the techniques in cumulative order: independent exact ones, trade-offs, then the trunk cache.

    Parameters
    ----------
    depth
        Number of layers of the encoder.
    cuts
        Whether any text is longer than `SHORTER` tokens; if none is, the shorter limit is exact.
    halves
        Whether half precision is faster on this machine; if not, mixed precision is left out.

    Returns
    -------
    list of Technique
        The first is `BASELINE`.
    """
    mixed = Technique("mixed_precision", "Precisión mixta", TRADE, {"precision": "auto"}, claim=(2.0, 3.0))
    return [
        BASELINE,
        Technique("dynamic_padding", "Relleno dinámico, por largos", EXACT, {"padding": "dynamic"}),
        Technique("cls_only", "Última capa solo para [CLS]", EXACT, {"cls_only": True}),
        Technique("engine", "AdamW fusionado, dropout por bloques", EXACT, engine=True),
        Technique("used_vocabulary", "Solo el vocabulario usado", EXACT, {"used_vocabulary": True}),
        Technique(
            "max_length",
            f"max_length = {SHORTER}",
            TRADE if cuts else EXACT,
            {"max_length": SHORTER},
            claim=(2.0, 2.0),
        ),
        *([mixed] if halves else []),
        _freeze(depth),
        Technique("trunk_cache", "Capas congeladas, una sola vez", GIVEN_FREEZING, {"cache_trunk": True}),
    ]


def cumulative(base: TrainConfig, depth: int, cuts: bool, halves: bool) -> list[tuple[Technique, TrainConfig]]:
    """Return each technique of `ladder` with a config that applies it and all previous ones.

    Parameters
    ----------
    base
        Config of the baseline.
    depth, cuts, halves
        See `ladder`.

    Returns
    -------
    list of (Technique, TrainConfig)
        In the order of `ladder`.
    """
    found = []
    for technique in ladder(depth, cuts, halves):
        base = base.replace(**technique.changes)
        found.append((technique, base))
    return found


def individual(depth: int, cuts: bool, halves: bool, batch_size: int) -> list[Technique]:
    """Return the techniques that are measured individually against the baseline.

    Parameters
    ----------
    depth, cuts, halves
        See `ladder`.
    batch_size
        Batch size of the baseline; gradient accumulation uses micro-batches of a quarter of it.

    Returns
    -------
    list of Technique
        Without the baseline.
    """
    micro = max(1, batch_size // 4)
    return [
        *(technique for technique in ladder(depth, cuts, halves)[1:] if technique.name != "trunk_cache"),
        Technique(
            "trunk_cache",
            "Congelar y calcular lo congelado una sola vez",
            GIVEN_FREEZING,
            {**_freeze(depth).changes, "cache_trunk": True},
        ),
        Technique(
            "gradient_accumulation",
            f"Acumular gradientes, {micro} × {batch_size // micro}",
            EXACT,
            {"batch_size": micro, "gradient_accumulation_steps": batch_size // micro},
        ),
        Technique("smaller_model", "Un codificador con la mitad de las capas", TRADE, half=True, claim=(2.0, 3.0)),
    ]


def summarize(technique: Technique, speedup: float, low: float, high: float) -> str:
    """Return a Spanish sentence that compares the measured speedup of a technique with the guide's.

    Parameters
    ----------
    technique
        The measured technique.
    speedup, low, high
        Median, minimum and maximum of the measured ratio to the baseline.

    Returns
    -------
    str
        In Spanish.
    """
    if low >= 0.9 and high <= 1.1:
        gain = "aquí apenas cambia el tiempo"
    elif low <= 1 <= high:
        gain = f"aquí la ganancia no se distingue del ruido ({low:.2f} a {high:.2f} veces)"
    elif speedup < 1:
        gain = f"aquí tarda {1 / speedup:.2f} veces lo que tardaba"
    else:
        gain = f"aquí va {speedup:.{1 if speedup >= 10 else 2}f} veces más rápido"
    how = {EXACT: "el resultado es el mismo", GIVEN_FREEZING: "el mismo resultado que congelando", TRADE: ""}
    cost = how[technique.kind] or "cambia el resultado: mire el F1"
    if technique.claim is None:
        return f"{gain.capitalize()}; {cost}."
    least, most = technique.claim
    promised = f"{least:g}" if least == most else f"{least:g} a {most:g}"
    if high < least:
        against = "menos que"
    elif low > most:
        against = "más que"
    else:
        against = "en línea con"
    return f"{gain.capitalize()}, {against} las {promised} veces de la guía; {cost}."


def _freeze(depth: int) -> Technique:
    """Return the technique that freezes all layers but two, as the guide does with BETO's twelve."""
    kept = max(1, depth - 2)
    return Technique("freeze", f"Congelar {kept} de {depth} capas", TRADE, {"freeze_layers": kept}, claim=(1.5, 2.0))
