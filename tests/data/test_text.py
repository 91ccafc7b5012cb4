"""Columns whose title repeats, as SAP writes it, in the text of a notice."""

import pandas as pd
import pytest

from ocensa_nb.data import notices

TABLE = pd.DataFrame(
    {
        "descripcion": [f"fuga número {i}" for i in range(20)],
        "modo": ["Desgaste", "Fuga"] * 10,
        "causa": ["Corrosión", "Sobrecarga"] * 10,
        "prioridad": ["Alta", "Baja"] * 10,
    }
)


@pytest.fixture(params=[".csv", ".xlsx"])
def path(request, tmp_path):
    table = TABLE.copy()
    for value in ("ESTACIÓN NORTE", "VÁLVULA DE 4"):
        table.insert(len(table.columns), "Denominación", value, allow_duplicates=True)
    path = tmp_path / f"a{request.param}"
    table.to_csv(path, index=False) if request.param == ".csv" else table.to_excel(path, index=False)
    return path


def test_read_repeated_title_of_a_text_field_puts_every_column_in_the_text(path):
    frame = notices.read(path)
    assert frame["texto"][0] == "fuga número 0. Denominación: ESTACIÓN NORTE. Denominación 2: VÁLVULA DE 4"
    columns = frame.attrs["report"].columns
    assert (columns["denominacion"], columns["denominacion.1"]) == ("Denominación", "Denominación.1")


def test_read_repeated_title_with_the_column_given_uses_only_that_one(path):
    frame = notices.read(path, {"denominacion": "Denominación.1"})
    assert frame["texto"][0] == "fuga número 0. Denominación: VÁLVULA DE 4"
    assert "denominacion.1" not in frame.attrs["report"].columns


def test_read_with_recorded_roles_puts_no_other_column_in_the_text(path):
    assert notices.read(path, recorded=["descripcion", "denominacion"])["texto"][0] == (
        "fuga número 0. Denominación: ESTACIÓN NORTE"
    )
    assert notices.read(path, recorded=["descripcion"])["texto"][0] == "fuga número 0"


def test_read_repeated_title_of_a_label_stays_out_of_the_text(tmp_path):
    table = TABLE.assign(**{"Denominación": "x", "Denominación.1": ["Rotura", "Atasco"] * 10})
    table.to_csv(tmp_path / "a.csv", index=False)
    frame = notices.read(tmp_path / "a.csv", {"modo": "Denominación.1"})
    assert frame["texto"][0] == "fuga número 0. Denominación: x"


@pytest.mark.parametrize(
    "title", ["Denominación.0", "Denominación.1234567", "Denominación." + "1" * 5_000, "Denominación.a"]
)
def test_read_title_that_only_resembles_a_repeated_one_is_not_used(tmp_path, title):
    TABLE.assign(**{"Denominación": "x", title: "y"}).to_csv(tmp_path / "a.csv", index=False)
    assert notices.read(tmp_path / "a.csv")["texto"][0] == "fuga número 0. Denominación: x"
