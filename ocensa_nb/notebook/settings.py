"""The settings in the panel: their controls, and the notes and warnings that explain a value on these notices."""

from ocensa_nb.benchmark.forecast import Forecast
from ocensa_nb.config import RECIPES, TrainConfig
from ocensa_nb.models import catalogue
from ocensa_nb.notebook import controls
from ocensa_nb.notebook.controls import CAUTION, HARM, Control, Note
from ocensa_nb.runtime import machine

BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)
PRECISIONS = {name: name for name in ("auto", "fp32", "tf32", "bf16", "fp16")}
PADDINGS = {"dynamic": "al más largo del batch", "max_length": "todos iguales"}
NOTHING_FROZEN = "Sin capas congeladas no hay nada que guardar."
CUT_CAUTION, CUT_HARM = 0.2, 0.5  # of the notices
SMOOTHING_CAUTION = 0.2
BATCH_CAUTION = 0.25  # of the training rows, in one step


def recipes() -> list[tuple[str, str]]:
    """Return the recipes as (text, name), the one recommended for this machine first."""
    best, _ = machine.recommend(machine.hardware())
    return [(f"{best} (la recomendada aquí)", best), *((name, name) for name in RECIPES if name != best)]


def make_controls(config: TrainConfig) -> dict[str, Control]:
    """Return the control of each field that the panel shows."""
    names = [n for n in catalogue.CATALOGUE if n not in catalogue.BUILT_HERE or n == config.model]
    places = {True: "en esta máquina", False: "se descarga"}
    known = [
        (f"{name} · {catalogue.CATALOGUE[name].about} · {places[catalogue.is_here(name)]}", name) for name in names
    ]
    if config.model not in names:
        known.append((config.model, config.model))
    return {
        "model": controls.dropdown("Codificador", known, "El modelo ya entrenado del que se parte"),
        "precision": controls.choice(
            "Formato numérico", PRECISIONS, config.precision, "Formato de los cálculos; auto mide y elige"
        ),
        "freeze_layers": controls.slider("Capas congeladas", 0, 12, "Las de abajo no se entrenan; 0 = ninguna"),
        "cache_features": controls.switch("Calcular las capas congeladas una sola vez", "Exacto: mismo resultado"),
        "cls_only": controls.switch("Última capa solo para [CLS]", "Exacto: calcula solo lo que se lee"),
        "max_length": controls.slider("Largo máximo", 16, 512, "Tokens por aviso; lo que sobra se corta", 8),
        "padding": controls.choice("Relleno", PADDINGS, config.padding, "Hasta dónde se rellenan los textos cortos"),
        "batch_size": controls.steps("Micro-batch", BATCHES, 1024, "Avisos a la vez en memoria"),
        "gradient_accumulation_steps": controls.steps(
            "Acumulación", BATCHES[:6], 256, "Micro-batches por paso del optimizador"
        ),
        "epochs": controls.slider("Épocas", 1, 30, "Vueltas a los datos, como máximo", most=100),
        "patience": controls.slider("Paciencia", 1, 10, "Épocas sin mejora antes de parar", most=100),
        "label_smoothing": controls.slider("Suavizado", 0.0, 0.3, "Suavizado de etiquetas, de 0 a 1", 0.01, most=0.9),
        "class_weights": controls.switch("Pesar las clases raras de la causa", "Regla balanced de scikit-learn"),
    }


def notes(config: TrainConfig, forecast: Forecast) -> dict[str, Note]:
    """Return the note of each setting that has one.

    Parameters
    ----------
    config
        The settings; its encoder must be here or in the catalogue.
    forecast
        Knows the notices and the encoder.

    Returns
    -------
    dict
        Notes by name of the field; empty for a value without anything to say.
    """
    encoder = forecast.encoder(config.model)
    return {
        "model": Note("" if encoder.here else "No está en esta máquina: se descarga al entrenar."),
        "freeze_layers": _frozen(config, forecast),
        "cache_features": Note("" if config.freeze_layers else NOTHING_FROZEN),
        "max_length": _cut(config, forecast),
        "batch_size": Note(),
        "gradient_accumulation_steps": _batch(config, len(forecast.notices.split["train"])),
        "epochs": Note("una sola vuelta: el modelo apenas aprende", CAUTION) if config.epochs == 1 else Note(),
        "patience": _patience(config),
        "label_smoothing": _smoothing(config),
    }


def _frozen(config: TrainConfig, forecast: Forecast) -> Note:
    depth = forecast.encoder(config.model).depth
    trainable, total = forecast.parameters(config)
    share = f"{100 * trainable / total:.0f} %"
    if config.freeze_layers >= depth:
        return Note(f"de {depth}: entrena solo las cabezas, el {share} de los parámetros", CAUTION)
    return Note(f"de {depth}: entrena {_millions(trainable)} de {_millions(total)} M de parámetros ({share})")


def _cut(config: TrainConfig, forecast: Forecast) -> Note:
    encoder, share = forecast.encoder(config.model), forecast.cut_share(config.model, config.max_length)
    counted = "" if encoder.here else f", contados con {encoder.counted_with}"
    text = f"tokens: se corta el {100 * share:.1f} % de sus avisos{counted}"
    if share <= CUT_CAUTION:
        return Note(text)
    return Note(f"{text}; el modelo no lee lo cortado", HARM if share > CUT_HARM else CAUTION)


def _batch(config: TrainConfig, rows: int) -> Note:
    text = f"batch efectivo: {config.effective_batch_size} avisos por paso"
    if config.effective_batch_size <= BATCH_CAUTION * rows:
        return Note(text)
    return Note(f"{text}; da muy pocos pasos por época: {config.steps_an_epoch(rows)}", CAUTION)


def _patience(config: TrainConfig) -> Note:
    never = config.patience >= config.epochs > 1
    return Note(f"no para antes: son {config.epochs} épocas como máximo" if never else "")


def _smoothing(config: TrainConfig) -> Note:
    if config.label_smoothing <= SMOOTHING_CAUTION:
        return Note()
    return Note("tanto suavizado frena el aprendizaje y baja las confianzas", CAUTION)


def _millions(count: int) -> str:
    return f"{count / 1e6:.{1 if count >= 1e6 else 3}f}"
