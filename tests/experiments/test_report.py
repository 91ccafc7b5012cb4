"""The report: content, escaping, self-containment, accessibility, and folders that are empty or damaged."""

import re
from html.parser import HTMLParser

import pandas as pd
import pytest

from ocensa_nb.errors import num
from ocensa_nb.experiments.report import (
    cases_table,
    effects_table,
    pareto_figure,
    quality_table,
    sentences,
    write_report,
    write_results,
)
from ocensa_nb.experiments.results import read_results
from tests.helpers.experiments import add_case, add_run

EVIL = '<script>alert(1)</script>"onload="alert(2)'


class Page(HTMLParser):
    """The elements of a page, its text, and its links."""

    def __init__(self, content):
        super().__init__()
        self.elements, self.texts = [], []
        self.feed(content)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def text(self):
        return " ".join(self.texts)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def report(out):
    return Page(write_report(read_results(out)).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    path = tmp_path_factory.mktemp("experiment")
    for seed in (1, 2, 3):
        add_run(add_case(path, {}, seed), 0.5 + 0.01 * seed, 100, linear=0.3)
        add_run(add_case(path, {"epochs": 3}, seed), 0.4, 50, linear=0.3)
    error = {"notebook": "03_train", "cell": 9, "line": f"UserError: {EVIL}"}
    add_case(path, {"epochs": 9}, 1, "failed", title=EVIL, command=f"python {EVIL}", error=error)
    (path / "grid.yaml").write_text("# sin medir: GPU en la nube: aquí no hay GPU.\nbase: {}\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def page(out):
    return report(out)


def test_report_has_scores_speedup_verdicts_and_what_is_not_measured(page):
    for said in (
        "0,520 ± 0,010 (3)",
        "2 (2 a 2)",
        "empeora",
        "La mejor en validación es «baseline»",
        "aquí no hay GPU",
    ):
        assert said in page.text, said
    assert "7 casos: 6 terminados, 1 fallido." in page.text
    assert "03_train, celda [9]: UserError" in page.text


def test_report_is_self_contained(page):
    for tag, name in (("img", "src"), ("source", "srcset")):
        assert page.all(tag)
        assert all(attributes[name].startswith("data:image/svg+xml;base64,") for attributes in page.all(tag))
    assert page.all("link") == []
    assert all("src" not in attributes for attributes in page.all("script"))


def test_report_links_exist_and_are_relative(page, out):
    links = [attributes["href"] for attributes in page.all("a")]
    assert len(links) >= 24
    assert all((out / link).is_file() for link in links)


def test_report_escapes_what_looks_like_html(page, out):
    content = (out / "report.html").read_text(encoding="utf-8")
    assert "<script>alert" not in content
    assert not any("onload" in attributes for _, attributes in page.elements)
    assert EVIL in page.text
    assert len(page.all("script")) == 1


def test_report_has_one_title_headings_in_order_and_table_headers_with_scope(page):
    assert len(page.all("h1")) == 1
    assert len(page.all("h2")) >= 5
    assert page.all("html") == [{"lang": "es"}]
    assert all(attributes.get("scope") in ("col", "row") for attributes in page.all("th"))
    assert len(page.all("caption")) == len(page.all("table"))
    assert all(attributes["alt"] for attributes in page.all("img"))


def test_report_carries_every_command(page):
    commands = [text for text in page.texts if text.startswith("python -m ocensa_nb train")]
    assert len(set(commands)) == 3  # one per seed
    assert len([b for b in page.all("button") if b["class"] == "copy"]) >= 7


def luminance(colour):
    """Return the relative luminance of a colour (WCAG 2.1)."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_report_text_contrast_is_sufficient_in_both_schemes(out, scheme):
    style = (out / "report.html").read_text(encoding="utf-8")
    colours = dict(re.findall(r"--(\w+): (#\w{6})", re.findall(r":root \{([^}]*)\}", style)[scheme]))
    for ink in ("ink", "muted", "link"):
        for ground in ("page", "soft", "mark", "warn"):
            pair = sorted((luminance(colours[ink]), luminance(colours[ground])))
            assert (pair[1] + 0.05) / (pair[0] + 0.05) >= 4.5, (ink, ground)


def test_report_twice_has_the_same_bytes(out):
    assert write_report(read_results(out)).read_bytes() == write_report(read_results(out)).read_bytes()


def test_report_of_encoders_no_better_than_the_simple_model_says_so(tmp_path):
    add_run(add_case(tmp_path, {}, 1), 0.5, 100, linear=0.5)
    assert "El modelo simple (TF-IDF, que se ajusta en segundos) da lo mismo" in report(tmp_path).text


def test_report_without_baseline_says_how_to_add_it(tmp_path):
    add_run(add_case(tmp_path, {"epochs": 3}, 1), 0.5, 100)
    found = report(tmp_path).text
    assert "No hay un caso «baseline»" in found
    assert "«name: baseline»" in found


def test_report_marks_resumed_and_simultaneous_cases(tmp_path):
    seconds = {"training": 10.0, "linear": 1.0, "features": 0.0, "earlier": 4.0}
    add_run(add_case(tmp_path, {}, 1, jobs=2), 0.5, 10, seconds=seconds)
    found = report(tmp_path).text
    assert "↻ se interrumpió y continuó; ∥ al mismo tiempo que otros" in found
    assert "∥: se ejecutó al mismo tiempo" in found


def test_report_without_results_lists_the_cases(tmp_path):
    add_case(tmp_path, {}, 1, "pending")
    found = report(tmp_path)
    assert "Todavía no hay ningún resultado." in found.text
    assert found.all("img") == []


def test_report_of_a_single_case_cannot_tell_what_matters(tmp_path):
    add_run(add_case(tmp_path, {}, 1), 0.5, 100)
    assert "no se puede saber" in report(tmp_path).text


def test_report_of_metrics_without_the_monitored_one_has_no_figures(tmp_path):
    folder = add_case(tmp_path, {}, 1)
    add_run(folder, 0.5, 100)
    (folder / "run/metrics.json").write_text('{"val": {}, "test": {}}', encoding="utf-8")
    assert report(tmp_path).all("img") == []


@pytest.mark.parametrize("name", ["comparison", "sources", "linear"])
@pytest.mark.parametrize("value", ["[]", "3", '{"modo": 3}', '{"modo": {"blend-linear": 3}}'])
def test_report_of_damaged_metrics_is_written(tmp_path, name, value):
    folder = add_case(tmp_path, {}, 1)
    add_run(folder, 0.5, 100)
    content = f'{{"val": {{}}, "test": {{"f1": 0.5}}, "{name}": {value}}}'
    (folder / "run/metrics.json").write_text(content, encoding="utf-8")
    assert "1 caso" in report(tmp_path).text


def test_notebook_csv_and_page_show_the_same_tables(out, page, tmp_path):
    results = read_results(out)
    for table in (quality_table(results), effects_table(results)):
        assert all(str(value) in page.texts for value in table.to_numpy().ravel())
    csv = pd.read_csv(write_results(results), sep=";", decimal=",", encoding="utf-8-sig")
    assert list(csv["caso"]) == list(cases_table(results)["caso"])
    assert all(num(value, 3) in page.texts for value in csv["prueba"].dropna())
    assert quality_table(results)["F1 de prueba"][0] == "0,520 ± 0,010 (3)"
    assert list(quality_table(results)["segundos hasta el 95 %"]) == ["100,0 ± 0,0 (3)", "no llega"]
    assert effects_table(results)["lectura"][0] == "empeora"
    assert pareto_figure(results).axes[0].get_ylabel() == "F1 de prueba (0 a 1)"


def test_notebook_without_results_has_empty_tables(tmp_path):
    add_case(tmp_path, {}, 1, "pending")
    empty = read_results(tmp_path)
    assert len(quality_table(empty)) == len(effects_table(empty)) == 0
    assert pareto_figure(empty) is None
    assert sentences(empty) == ["1 caso: 1 pendiente. Todavía no hay ningún resultado."]
