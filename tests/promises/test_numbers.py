"""One style of numbers in what a person reads: `7 100` and `0,667`; files for programs keep the point."""

import ast
import re

import pytest

from ocensa_nb.audit.audit import audit, settings
from ocensa_nb.errors import num
from ocensa_nb.evaluation.evaluate import evaluate
from ocensa_nb.paths import ROOT
from ocensa_nb.training.card import model_card
from ocensa_nb.training.quality import report
from tests.promises.test_wording import TEXTS

# Commands, file names, quotes and versions, which keep their points.
KEPT = re.compile(
    r"python -m .*|«[^»]*»|\S*/\S*|\w+\.\w*[a-z]\w*|\d+\.\d+\.\d+|Apache-2\.0|Python 3\.\d+ a 3\.\d+|filelock .* y 4\.2"
)
ENGLISH = re.compile(r"\d\.\d|\d,\d{3},\d{3}|\b[1-9]\d{0,2},000\b|\d{5}")


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (num(999), "999"),
        (num(7100), "7 100"),
        (num(1234567), "1 234 567"),
        (num(0.6666, 3), "0,667"),
        (num(-1234.56, 1), "-1 234,6"),
        (num(0.02, 2, "+"), "+0,02"),
        (num(0.000253, 2, form="g"), "0,00025"),
    ],
)
def test_number_has_spaces_between_thousands_and_a_decimal_comma(shown, text):
    assert shown == text


def test_numbers_that_a_run_and_an_audit_show_have_a_decimal_comma(run, notices, csv):
    evaluation = evaluate(run)
    parts = {
        "data": str(notices.report).splitlines(),
        "training": report(run.metrics, verbose=True),
        "card": model_card(run, run.metrics).splitlines(),
        "evaluation": [*evaluation.notes, evaluation.summary().round(3).to_string(decimal=",")],
        "audit": audit(settings(str(csv))).lines(),
    }
    said = {part: KEPT.sub("", "\n".join(lines)) for part, lines in parts.items()}
    assert all(re.search(r"\d,\d", said[part]) for part in ("training", "card", "audit"))
    assert not [line for text in said.values() for line in text.splitlines() if ENGLISH.search(line)]


def test_no_text_of_the_package_formats_a_number_otherwise():
    drawn = {ROOT / "ocensa_nb/errors.py", ROOT / "ocensa_nb/notebook/live_view.py"}  # `num` itself, and SVG
    wrong = [
        f"{path.name}:{node.lineno}"
        for path in sorted({*(ROOT / "ocensa_nb").rglob("*.py")} - drawn)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FormattedValue) and node.format_spec
        if re.search(r",|\.[1-9{]\d*f?", "".join(str(getattr(part, "value", "{")) for part in node.format_spec.values))
        if "g" not in ast.unparse(node.format_spec)  # what a user types, or a cell of a workbook
    ]
    assert not wrong


@pytest.mark.parametrize("group", ["readmes", "notebooks"])
def test_prose_has_no_english_number(group):
    assert not [text for _, text in TEXTS[group] if ENGLISH.search(KEPT.sub("", text))]
