"""What identifies a notice in its file."""

import pandas as pd
import pytest

from ocensa_nb.data.columns import notice_ids


@pytest.mark.parametrize("title", ["id_aviso", "Aviso", "Nº aviso", "Número de aviso"])
def test_notice_ids_are_the_files_own(title):
    assert notice_ids(pd.DataFrame({"descripcion": ["a", "b"], title: [" 10 ", "11"]})).tolist() == ["10", "11"]


def test_notice_ids_without_a_column_are_the_rows_in_a_spreadsheet():
    assert notice_ids(pd.DataFrame({"descripcion": ["a", "b"]})).tolist() == ["fila 2", "fila 3"]


def test_notice_ids_that_are_empty_are_replaced_by_the_row():
    assert notice_ids(pd.DataFrame({"id_aviso": ["10", " "]})).tolist() == ["10", "fila 3"]
