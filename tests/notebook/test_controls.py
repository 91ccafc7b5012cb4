"""Numbers that can be typed or slid, and the notes beside them."""

import ipywidgets as ipw
import pytest

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
    epochs.on_change(lambda: calls.append(epochs.value))
    from_page(epochs.widget.text, 16)
    assert (epochs.value, epochs.widget.slider.value, calls) == (16, 16, [16])
    from_page(epochs.widget.slider, 7)
    assert (epochs.value, epochs.widget.text.value, calls) == (7, 7, [16, 7])


def test_typed_number_beyond_the_slider_extends_it(epochs):
    from_page(epochs.widget.text, 40)
    assert (epochs.value, epochs.widget.slider.value, epochs.widget.slider.max) == (40, 40, 40)


@pytest.mark.parametrize("typed", [0, -3, 101])
def test_typed_number_out_of_range_restores_the_old_one_with_a_note(epochs, typed):
    calls = []
    epochs.value = 12
    epochs.on_change(lambda: calls.append(epochs.value))
    from_page(epochs.widget.text, typed)
    assert (epochs.value, epochs.widget.text.value, epochs.widget.slider.value, calls) == (12, 12, 12, [])
    assert f"{typed} no es válido: use de 1 a 100. Sigue en 12." in epochs.note.value
    assert CAUTION in epochs.note.value


def test_typed_number_between_the_steps_of_a_slider_is_accepted(batch):
    from_page(batch.widget.text, 24)
    assert (batch.value, batch.widget.slider.value) == (24, 24)
    assert batch.widget.slider.options == (1, 2, 4, 8, 16, 24, 32)
    from_page(batch.widget.text, 4096)
    assert (batch.value, batch.widget.text.value) == (24, 24)
    assert "4096 no es válido" in batch.note.value


def test_typed_fraction_is_accepted_and_slid_fractions_have_no_rounding_noise():
    smoothing = controls.slider("Suavizado", 0.0, 0.3, "De 0 a 1", 0.01, most=0.9)
    assert isinstance(smoothing.widget.text, ipw.FloatText)
    from_page(smoothing.widget.text, 0.35)
    assert (smoothing.value, smoothing.widget.slider.max) == (0.35, 0.35)
    from_page(smoothing.widget.slider, 0.15000000000000002)
    assert (smoothing.value, smoothing.widget.text.value) == (0.15, 0.15)


def test_value_set_by_the_code_extends_what_can_be_typed(epochs):
    epochs.value = 150  # a parameter of the notebook
    assert epochs.widget.slider.max == 150
    from_page(epochs.widget.text, 120)
    assert epochs.value == 120


def test_limit_reduces_a_larger_value_and_rejects_it_when_typed():
    layers = controls.slider("Capas congeladas", 0, 12, "Las de abajo")
    layers.value = 11
    layers.widget.limit(6, shown=6)
    assert (layers.value, layers.widget.slider.value, layers.widget.slider.max) == (6, 6, 6)
    from_page(layers.widget.text, 7)
    assert layers.value == 6
    layers.widget.limit(24, shown=12)
    from_page(layers.widget.text, 20)
    assert (layers.value, layers.widget.slider.max) == (20, 20)


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
