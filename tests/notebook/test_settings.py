"""Notes and warnings about the settings."""

import pytest

from ocensa_nb.benchmark.forecast import Forecast
from ocensa_nb.notebook import settings
from ocensa_nb.notebook.controls import CAUTION, HARM


@pytest.fixture(scope="module")
def forecast(notices):
    return Forecast(notices)


@pytest.fixture
def notes_of(config, forecast):
    """Return a function from changed fields to the notes."""
    return lambda **changes: settings.notes(config.replace(**changes), forecast)


def test_recipe_values_have_no_warning(notes_of):
    notes = notes_of(epochs=6)
    assert {name: note for name, note in notes.items() if note.level} == {}


@pytest.mark.parametrize(("share", "level"), [(0.2, ""), (0.21, CAUTION), (0.5, CAUTION), (0.51, HARM), (1.0, HARM)])
def test_length_that_cuts_many_notices_is_a_warning_by_their_share(notes_of, monkeypatch, share, level):
    monkeypatch.setattr(Forecast, "cut_share", lambda *_: share)
    note = notes_of(max_length=16)["max_length"]
    assert note.level == level
    assert f"se corta el {100 * share:.1f} %" in note.text
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
    assert notes_of().keys() <= settings.make_controls(config).keys()
