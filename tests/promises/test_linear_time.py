"""Text of twice the length takes about twice the time, and what was made linear gives what it gave before."""

import re
import time
import unicodedata

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocensa_nb.data import canonical, columns
from ocensa_nb.data.canonical import _TAG_PREFIXES, normalise
from ocensa_nb.data.notices import read
from ocensa_nb.errors import LISTED, UserError, num
from ocensa_nb.files import notice_file, read_csv, write
from ocensa_nb.models import catalogue, tokenizer_checks

QUICK = 0.02  # seconds below which the noise of a clock matters
LONGEST = 2**17  # pieces; longer, and the memory they take changes the time
REPEATS, RETRIES = 3, 5

# What a text is made of: one unbroken word, line breaks, and marks that Unicode has to sort. Searching again at each
# position makes the first two quadratic, sorting the third.
PIECES = ["a-", "\n", "\u0301\u0327"]


def frame(text):
    return pd.DataFrame({"descripcion": [text]})


def compose_longest(text):
    """Compose the text in a field without a limit of characters."""
    table = frame("fuga").assign(equipo=[text])
    return columns.compose(table, {"descripcion": "descripcion", "equipo": "equipo"}, ["equipo"])


TOKENIZER = catalogue.load_tokenizer("tiny", ["fuga de aceite"])
FUNCTIONS = {
    "canonical.without_accents": canonical.without_accents,
    "text.normalise": normalise,
    "notice_file.readable": lambda text: notice_file.readable(frame(text)),
    "columns.compose": compose_longest,
    "canonical.fold": canonical.fold,
    "columns._not_a_label": lambda text: columns._not_a_label(pd.Series([text])),
    "notice_file.detect_format": lambda text: notice_file.detect_format(frame(text), ";", "utf-8"),
    "output_tables.inert": lambda text: write.inert(frame(text)),
    "tables._separator": lambda text: read_csv._separator(f"a{text}"),
    "tables.find_layout": lambda text: read_csv.find_layout(f"a{text}", columns.title_predicate((), {})),
    "columns.rank_columns": lambda text: columns.rank_columns(frame(text), "texto", "", ()),
    "tokenizer_checks.describe": lambda text: tokenizer_checks.describe(0.0, [text], TOKENIZER),
}


def seconds(function, text):
    """Return the least time of several calls: what disturbs a call only makes it longer."""
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        function(text)
        times.append(time.perf_counter() - start)
    return min(times)


@pytest.mark.parametrize("piece", [PIECES[0], *(pytest.param(piece, marks=pytest.mark.slow) for piece in PIECES[1:])])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_text_function_on_doubled_length_takes_less_than_three_times_as_long(name, piece):
    function, length = FUNCTIONS[name], 2_000
    while length < LONGEST and seconds(function, piece * length) < QUICK:
        length *= 2
    for _ in range(RETRIES):
        short, long = seconds(function, piece * length), seconds(function, piece * 2 * length)
        if long < max(3 * short, QUICK):
            return
    pytest.fail(f"{length} pieces: {short:.3f} s, {2 * length}: {long:.3f} s")


# Characters that the rewritten expressions treat apart, and any others.
texts = st.text(st.sampled_from("aB-_1٣ ;|\t\r\n=+@#áÑ\u0301\u0327") | st.characters(), max_size=12)


def normalise_before(text):
    plain = unicodedata.normalize("NFKD", text.lower())
    plain = "".join(c for c in plain if not unicodedata.combining(c))
    plain = re.sub(r"[\w-]*\d[\w-]*", "#", plain)
    plain = re.sub(rf"\b({_TAG_PREFIXES}) #", "#", plain)
    return re.sub(r"[\W_]+", " ", plain.replace("#", " 0 ")).strip()


def fold_before(name):
    plain = unicodedata.normalize("NFKD", re.sub(r"\.\d+$", "", name))
    plain = "".join(c for c in plain if not unicodedata.combining(c)).lower()
    return re.sub(r"[^a-z0-9]+", "_", plain).strip("_")


@settings(max_examples=1000)
@given(texts)
def test_normalise_matches_the_quadratic_implementation(text):
    assert normalise(text) == normalise_before(text)


@settings(max_examples=1000)
@given(texts)
def test_fold_matches_the_previous_implementation(text):
    assert canonical.fold(text) == fold_before(text)


@settings(max_examples=1000)
@given(texts)
def test_formula_regex_matches_the_quadratic_one(text):
    before = re.sub(r"""(^|[,;|\t\r\n])([\s"]*)(?=[=+\-@＝＋－＠])""", r"\1\2'", text)
    assert write._FORMULA.sub(r"\1'", text) == before


def test_normalise_text_without_spaces_takes_under_10_ms():
    text = "A-" * 2_450
    assert seconds(normalise, text) < 0.01  # 20,000 such rows: below 200 s; it was an hour


@pytest.mark.parametrize("form", ["csv", "csv of one repeated name", "csv with line breaks in titles", "xlsx"])
def test_read_table_with_too_many_columns_raises_after_reading_the_header(tmp_path, form, monkeypatch):
    monkeypatch.setattr(pd, "read_csv", lambda *_, **__: pytest.fail("read whole"))
    count = 2_000 if form == "xlsx" else 100_000
    titles = [
        {"csv of one repeated name": "a", "csv with line breaks in titles": f'"a\n{i}"'}.get(form, f"a{i}")
        for i in range(count)
    ]
    path = tmp_path / f"a.{form[:4].strip()}"
    if form == "xlsx":
        pd.DataFrame([titles]).to_excel(path, index=False, header=False)
    else:
        path.write_text(",".join(titles) + "\n1\n", encoding="utf-8")
    with pytest.raises(UserError, match=f"{num(count)} columnas") as raised:
        notice_file.read_table(path)
    assert len(str(raised.value)) < 500


def test_missing_column_message_lists_a_limited_number_of_short_names(tmp_path):
    titles = [f"{'x' * 500}{i}" for i in range(300)]
    (tmp_path / "a.csv").write_text(",".join(titles) + "\n" + ",".join("1" * 300) + "\n", encoding="utf-8")
    with pytest.raises(UserError, match=f"y {300 - LISTED} más") as raised:
        read(tmp_path / "a.csv")
    assert len(str(raised.value)) < 1_500


def test_read_xlsx_with_stray_cell_at_column_2000_succeeds(tmp_path):
    table = frame("fuga de aceite").assign(**{"": ""})
    with pd.ExcelWriter(tmp_path / "a.xlsx", engine="openpyxl") as book:
        table.to_excel(book, index=False)
        book.book.active.cell(1, workbooks_column := 2_000).value = "nota"
    assert notice_file.read_table(tmp_path / "a.xlsx").table.shape == (1, workbooks_column)
