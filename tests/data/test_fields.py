"""Columns that the linear model may read: those that are filled when a notice is created."""

import pandas as pd
import pytest

from ocensa_nb.data import notices
from ocensa_nb.data.fields import find_fields, read_fields
from ocensa_nb.errors import UserError
from ocensa_nb.paths import ROOT

LATER = [
    "Causas avería",
    "Txt. cód. mot.",
    "Status sistema",
    "Orden",
    "duracion_horas",
    "fecha_fin",
    "hora_fin",
    "Causa",
]


def test_export_of_sap_gives_what_is_known_at_creation_and_nothing_that_is_filled_later():
    file = notices.read(ROOT / "data/example_iw69.csv")
    assert {"equipo", "Ubicac.técnica", "Perfil catálogo", "Parada", "Indicador ABC", "Código averia"} <= {
        *file.known_fields
    }
    assert not {*LATER, *(file.columns[role] for role in ("descripcion", "modo", "causa", "prioridad"))} & {
        *file.fields
    }


@pytest.mark.parametrize("name", LATER)
def test_column_that_is_filled_later_is_used_only_if_named_and_with_a_warning(name, caplog):
    cells = pd.DataFrame({"Parada": ["X", ""], name: ["1", "2"]})
    assert find_fields(cells, [], [], "a.csv") == (["Parada"], [])
    assert find_fields(cells, [name], [], "a.csv") == ([name, "Parada"], [])
    assert f"«{name}»: suele llenarse después" in caplog.text


def test_named_column_that_is_missing_or_a_label_raises_user_error():
    cells = pd.DataFrame({"prioridad": ["1"], "Parada": [""]})
    with pytest.raises(UserError, match=r"«Paradda» no existe\. ¿Quiso decir «Parada»"):
        find_fields(cells, ["Paradda"], [], "a.csv")
    with pytest.raises(UserError, match="«prioridad» es la descripción o una etiqueta"):
        find_fields(cells, ["prioridad"], ["prioridad"], "a.csv")


def test_values_are_canonical_and_a_missing_column_is_empty():
    cells = pd.DataFrame({"indicador  abc": ["2.0", "2", "A", ""]})
    values = read_fields(cells, ["Indicador ABC", "Parada"])
    assert values["Indicador ABC"].tolist() == ["2", "2", "a", ""]
    assert values["Parada"].tolist() == [""] * 4
