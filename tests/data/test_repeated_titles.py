"""Columns whose title repeats, as SAP writes it, in the text of a notice."""

import pandas as pd
import pytest

from ocensa_nb.data import notices
from ocensa_nb.data.notices import labelled_rows
from ocensa_nb.errors import UserError

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


def test_read_repeated_title_of_a_text_field_uses_the_first_and_says_how_to_add_the_second(path):
    file = notices.read(path)
    assert file.texts[0] == "fuga número 0. Denominación: ESTACIÓN NORTE"
    assert '--columns denominacion.1 "Denominación.1"' in str(labelled_rows(file).report)


def test_read_repeated_title_that_is_configured_enters_the_text_after_the_first(path):
    file = notices.read(path, {"denominacion.1": "Denominación.1"})
    assert file.texts[0] == "fuga número 0. Denominación: ESTACIÓN NORTE. Denominación 2: VÁLVULA DE 4"
    report = labelled_rows(file).report
    assert (report.columns["denominacion"], report.columns["denominacion.1"]) == ("Denominación", "Denominación.1")
    assert "no se usó" not in str(report)


def test_read_repeated_titles_suggest_the_next_free_roles_up_to_a_limit(tmp_path):
    table = TABLE.assign(**{f"Denominación.{i}" if i else "Denominación": f"x{i}" for i in range(30)})
    table.to_csv(tmp_path / "a.csv", index=False)
    said = str(labelled_rows(notices.read(tmp_path / "a.csv", {"denominacion.1": "Denominación.5"})).report)
    assert '--columns denominacion.2 "Denominación.1"' in said
    assert '--columns denominacion.6 "Denominación.6"' in said
    assert said.count("no se usó como denominacion") == 9


def test_read_second_column_configured_alone_is_the_only_one_in_the_text(path):
    file = notices.read(path, {"denominacion": "Denominación.1"})
    assert file.texts[0] == "fuga número 0. Denominación: VÁLVULA DE 4"


@pytest.mark.parametrize("role", ["motivo.1", "descripcion.1", "denominacion.0", "denominacion.100", "denominacion."])
def test_read_configured_role_that_repeats_no_text_field_raises_user_error(path, role):
    with pytest.raises(UserError, match=f"el papel «{role}» no existe"):
        notices.read(path, {role: "Denominación.1"})


def test_read_with_recorded_roles_puts_no_other_column_in_the_text(path):
    columns = {"denominacion.1": "Denominación.1"}
    recorded = ["descripcion", "denominacion"]
    assert notices.read(path, columns, recorded=recorded).texts[0] == "fuga número 0. Denominación: ESTACIÓN NORTE"
    assert notices.read(path, recorded=["descripcion"]).texts[0] == "fuga número 0"


def test_read_repeated_title_of_a_label_stays_out_of_the_text(tmp_path):
    table = TABLE.assign(**{"Denominación": "x", "Denominación.1": ["Rotura", "Atasco"] * 10})
    table.to_csv(tmp_path / "a.csv", index=False)
    file = notices.read(tmp_path / "a.csv", {"modo": "Denominación.1"})
    assert file.texts[0] == "fuga número 0. Denominación: x"
