"""Show something of one label at a time: all of them without a user, the others on request with one."""

from collections.abc import Callable, Iterable
from typing import Any

import ipywidgets as ipw
from IPython.display import display

from ocensa_nb.notebook import session


def by_label(labels: Iterable[str], show: Callable[[str], Any], first: str | None) -> None:
    """Display what `show` returns for one label, and let the user choose another.

    Parameters
    ----------
    labels
        All labels.
    show
        Returns what to display for a label, e.g. a table or a figure.
    first
        Label that is displayed at once. Saved notebooks keep it; they do not include widgets. None if there are no
        labels: a sentence says so.
    """
    if first is None:
        print("No hay ninguna etiqueta que mostrar.")
        return

    def show_titled(label: str | None) -> None:
        if label is not None:
            print(f"Etiqueta: {label}")
            display(show(label))

    show_titled(first)
    rest = [label for label in labels if label != first]
    if not session.is_interactive():
        for label in rest:
            show_titled(label)
    elif rest:
        choice = ipw.Dropdown(options=[("otra etiqueta…", None), *zip(rest, rest, strict=True)], description="Ver")
        display(choice, ipw.interactive_output(show_titled, {"label": choice}))
