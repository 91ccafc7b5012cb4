"""Tables in a notebook: whole words, few decimals, and no HTML of a cell."""

import pandas as pd

from ocensa_nb.figures import tables


def test_readable_numbers_have_few_decimals():
    html = tables.readable(pd.DataFrame({"F1": [0.123456], "% de la clase": [33.3333], "filas": [1234]})).to_html()
    assert ">0.123<" in html
    assert ">33.3<" in html
    assert ">1,234<" in html


def test_readable_text_is_whole_and_wraps_at_spaces_only():
    text = "fuga por sello mecánico " * 40
    html = tables.readable(pd.DataFrame({"texto": [text]})).to_html()
    assert text in html
    for rule in ("word-break: normal", "overflow-wrap: normal", "table-layout: auto", "text-align: left"):
        assert rule in html


def test_readable_shows_the_html_of_a_cell_a_title_or_an_index_as_text():
    hostile = "<img src=x onerror=alert(1)>"
    html = tables.readable(pd.DataFrame({hostile: [hostile]}, [hostile])).to_html()
    assert "<img" not in html
    assert html.count("&lt;img") == 3


def test_readable_hides_an_index_that_only_numbers_the_rows():
    assert "row_heading" not in tables.readable(pd.DataFrame({"a": ["x"]})).to_html().split("</style>")[1]
    assert "clase A" in tables.readable(pd.DataFrame({"a": ["x"]}, ["clase A"])).to_html()


def test_readable_draws_an_empty_table():
    assert "texto" in tables.readable(pd.DataFrame({"texto": [], "confianza": pd.Series([], dtype=float)})).to_html()
