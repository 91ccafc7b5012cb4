"""Something of each label: all of them without a user; one, and the one that is chosen, with one."""

import ipywidgets as ipw
import pytest

from ocensa_nb.notebook import by_label


@pytest.fixture
def displayed(monkeypatch):
    """Return the list of what is displayed, outside of a notebook."""
    found = []
    monkeypatch.setattr(by_label, "display", lambda *parts: found.extend(parts))
    return found


def test_by_label_without_a_user_shows_all_the_given_one_first(displayed, capsys):
    by_label.by_label(["modo", "causa"], str.upper, "causa")
    assert displayed == ["CAUSA", "MODO"]
    assert capsys.readouterr().out == "Etiqueta: causa\nEtiqueta: modo\n"


def test_by_label_with_a_user_shows_one_and_then_the_chosen(displayed, monkeypatch):
    monkeypatch.setattr(by_label.session, "is_interactive", lambda: True)
    by_label.by_label(["modo", "causa", "prioridad"], str.upper, "causa")
    first, choice, output = displayed
    assert first == "CAUSA"
    assert isinstance(output, ipw.Output)
    assert [value for _, value in choice.options] == [None, "modo", "prioridad"]
    choice.value = "prioridad"
    assert displayed[3:] == ["PRIORIDAD"]


def test_by_label_with_one_label_offers_no_choice(displayed, monkeypatch):
    monkeypatch.setattr(by_label.session, "is_interactive", lambda: True)
    by_label.by_label(["modo"], str.upper, "modo")
    assert displayed == ["MODO"]


@pytest.mark.parametrize("interactive", [False, True])
def test_by_label_without_labels_says_so_and_shows_nothing(displayed, monkeypatch, capsys, interactive):
    monkeypatch.setattr(by_label.session, "is_interactive", lambda: interactive)
    by_label.by_label([], {}.__getitem__, None)
    assert displayed == []
    assert capsys.readouterr().out == "No hay ninguna etiqueta que mostrar.\n"
