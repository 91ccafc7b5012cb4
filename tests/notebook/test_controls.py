"""Numbers that can be typed or slid, notes and warnings about the settings, and the choice of a label."""

import ipywidgets as ipw
import pytest

from ocensa_nb.benchmark.forecast import Forecast
from ocensa_nb.errors import num
from ocensa_nb.figures import style
from ocensa_nb.notebook import controls
from ocensa_nb.notebook.controls import CAUTION, HARM, Note


@pytest.fixture
def epochs():
    return controls.slider("Épocas", 1, 30, "Vueltas a los datos", most=100)


@pytest.fixture
def batch():
    return controls.steps("Micro-batch", (1, 2, 4, 8, 16, 32), 1024, "Avisos a la vez")


def from_page(widget, value):
    """Set the value of a widget as a message of the page does."""
    widget.set_state({"value": value})


def test_typed_number_moves_the_slider_and_calls_the_watcher_once(epochs):
    calls = []
    epochs.on_change(lambda: calls.append(epochs.widget.value))
    from_page(epochs.widget.text, 16)
    assert (epochs.widget.value, epochs.widget.slider.value, calls) == (16, 16, [16])
    from_page(epochs.widget.slider, 7)
    assert (epochs.widget.value, epochs.widget.text.value, calls) == (7, 7, [16, 7])


def test_typed_number_beyond_the_slider_extends_it(epochs):
    from_page(epochs.widget.text, 40)
    assert (epochs.widget.value, epochs.widget.slider.value, epochs.widget.slider.max) == (40, 40, 40)


@pytest.mark.parametrize("typed", [0, -3, 101])
def test_typed_number_out_of_range_restores_the_old_one_with_a_note(epochs, typed):
    calls = []
    epochs.widget.value = 12
    epochs.on_change(lambda: calls.append(epochs.widget.value))
    from_page(epochs.widget.text, typed)
    assert (epochs.widget.value, epochs.widget.text.value, epochs.widget.slider.value, calls) == (12, 12, 12, [])
    assert f"{typed} no es válido: use de 1 a 100. Sigue en 12." in epochs.note.value
    assert CAUTION in epochs.note.value


def test_typed_number_between_the_steps_of_a_slider_is_accepted(batch):
    from_page(batch.widget.text, 24)
    assert (batch.widget.value, batch.widget.slider.value) == (24, 24)
    assert batch.widget.slider.options == (1, 2, 4, 8, 16, 24, 32)
    from_page(batch.widget.text, 4096)
    assert (batch.widget.value, batch.widget.text.value) == (24, 24)
    assert "4096 no es válido" in batch.note.value


def test_typed_fraction_is_accepted_and_slid_fractions_have_no_rounding_noise():
    smoothing = controls.slider("Suavizado", 0.0, 0.3, "De 0 a 1", 0.01, most=0.9)
    assert isinstance(smoothing.widget.text, ipw.FloatText)
    from_page(smoothing.widget.text, 0.35)
    assert (smoothing.widget.value, smoothing.widget.slider.max) == (0.35, 0.35)
    from_page(smoothing.widget.slider, 0.15000000000000002)
    assert (smoothing.widget.value, smoothing.widget.text.value) == (0.15, 0.15)


def test_value_set_by_the_code_extends_what_can_be_typed(epochs):
    epochs.widget.value = 150  # a parameter of the notebook
    assert epochs.widget.slider.max == 150
    from_page(epochs.widget.text, 120)
    assert epochs.widget.value == 120


def test_limit_reduces_a_larger_value_and_rejects_it_when_typed():
    layers = controls.slider("Capas congeladas", 0, 12, "Las de abajo")
    layers.widget.value = 11
    layers.widget.limit(6, shown=6)
    assert (layers.widget.value, layers.widget.slider.value, layers.widget.slider.max) == (6, 6, 6)
    from_page(layers.widget.text, 7)
    assert layers.widget.value == 6
    layers.widget.limit(24, shown=12)
    from_page(layers.widget.text, 20)
    assert (layers.widget.value, layers.widget.slider.max) == (20, 20)


def test_warning_has_a_sign_and_its_text_is_escaped(epochs):
    epochs.say(Note("<b>x</b>", HARM))
    assert f'class="ocensa-note {HARM}">⚠ &lt;b&gt;x' in epochs.note.value
    epochs.say(Note("x"))
    assert "⚠" not in epochs.note.value


def luminance(colour):
    """Return the relative luminance of a `#RRGGBB` colour (WCAG 2.1)."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize(("name", "pair"), [(CAUTION, style.CAUTION), (HARM, style.HARM)])
def test_warning_colours_do_not_depend_on_the_theme_and_have_enough_contrast(name, pair):
    background, text = pair
    assert f".{name} {{ background: {background}; color: {text}; }}" in style.PANEL_CSS
    dark, light = sorted((luminance(background), luminance(text)))
    assert (light + 0.05) / (dark + 0.05) >= 4.5


@pytest.fixture(scope="module")
def forecast(notices):
    return Forecast(notices)


@pytest.fixture
def notes_of(config, forecast):
    """Return a function from changed fields to the notes."""
    return lambda **changes: controls.notes(config.replace(**changes), forecast)


def test_recipe_values_have_no_warning(notes_of):
    notes = notes_of(epochs=6)
    assert {name: note for name, note in notes.items() if note.level} == {}


@pytest.mark.parametrize(("share", "level"), [(0.2, ""), (0.21, CAUTION), (0.5, CAUTION), (0.51, HARM), (1.0, HARM)])
def test_length_that_cuts_many_notices_is_a_warning_by_their_share(notes_of, monkeypatch, share, level):
    monkeypatch.setattr(Forecast, "cut_share", lambda *_: share)
    note = notes_of(max_length=16)["max_length"]
    assert note.level == level
    assert f"se corta el {num(100 * share, 1)} %" in note.text
    assert ("no lee lo cortado" in note.text) == bool(level)


@pytest.mark.parametrize(
    ("changes", "field", "level", "reason"),
    [
        ({"label_smoothing": 0.2}, "label_smoothing", "", ""),
        ({"label_smoothing": 0.25}, "label_smoothing", CAUTION, "frena el aprendizaje"),
        ({"epochs": 1}, "epochs", CAUTION, "apenas aprende"),
        ({"epochs": 2}, "epochs", "", ""),
        ({"epochs": 5, "patience": 5}, "patience", "", "no para antes: son 5 épocas"),
        ({"freeze_layers": 3}, "freeze_layers", "", "de 4: entrena"),
        ({"freeze_layers": -1}, "freeze_layers", "", "= todas menos 1: 3 de 4: entrena"),
        ({"freeze_layers": 4}, "freeze_layers", CAUTION, "solo las cabezas"),
        ({"batch_size": 80}, "gradient_accumulation_steps", "", "batch efectivo: 80 avisos"),  # of 320 training rows
        ({"batch_size": 81}, "gradient_accumulation_steps", CAUTION, "muy pocos pasos por época: 4"),
        ({"batch_size": 80, "gradient_accumulation_steps": 4}, "gradient_accumulation_steps", CAUTION, "época: 1"),
    ],
)
def test_harmful_value_is_a_warning_with_its_reason(notes_of, changes, field, level, reason):
    note = notes_of(**changes)[field]
    assert note.level == level
    assert reason in note.text
    assert bool(note.text) == bool(reason)


def test_every_note_belongs_to_a_control(notes_of, config):
    assert notes_of().keys() <= controls.make_controls(config).keys()


@pytest.fixture
def displayed(monkeypatch):
    """Return the list of what is displayed, outside of a notebook."""
    parts = []
    monkeypatch.setattr(controls, "display", lambda *shown: parts.extend(shown))
    return parts


def test_by_label_without_a_user_shows_all_the_given_one_first(displayed, capsys):
    controls.by_label(["modo", "causa"], str.upper, "causa")
    assert displayed == ["CAUSA", "MODO"]
    assert capsys.readouterr().out == "Etiqueta: causa\nEtiqueta: modo\n"


def test_by_label_with_a_user_shows_one_and_then_the_chosen(displayed, monkeypatch):
    monkeypatch.setattr(controls.session, "is_interactive", lambda: True)
    controls.by_label(["modo", "causa", "prioridad"], str.upper, "causa")
    first, choice, output = displayed
    assert first == "CAUSA"
    assert isinstance(output, ipw.Output)
    assert [value for _, value in choice.options] == [None, "modo", "prioridad"]
    choice.value = "prioridad"
    assert displayed[3:] == ["PRIORIDAD"]


def test_by_label_with_one_label_offers_no_choice(displayed, monkeypatch):
    monkeypatch.setattr(controls.session, "is_interactive", lambda: True)
    controls.by_label(["modo"], str.upper, "modo")
    assert displayed == ["MODO"]


@pytest.mark.parametrize("interactive", [False, True])
def test_by_label_without_labels_says_so_and_shows_nothing(displayed, monkeypatch, capsys, interactive):
    monkeypatch.setattr(controls.session, "is_interactive", lambda: interactive)
    controls.by_label([], {}.__getitem__, None)
    assert displayed == []
    assert capsys.readouterr().out == "No hay ninguna etiqueta que mostrar.\n"
