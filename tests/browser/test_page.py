"""The pages of a file and of a run in a real browser: no sideways scroll, dark colours, tables that sort."""

import shutil

import pytest

from ocensa_nb.daily.page import write_page, write_run_page
from ocensa_nb.data import synthetic
from ocensa_nb.evaluation.predict import predict
from ocensa_nb.runs.run import Run

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("width", [400, 1200])
def test_pages_fit_a_telephone_and_sort_by_a_click(page, run, tmp_path, width):
    run = Run.load(shutil.copytree(run.path, tmp_path / "run"))
    synthetic.generate(120, 5).to_csv(tmp_path / "a.csv", index=False)
    predicted = predict(run, tmp_path / "a.csv")
    page.set_viewport_size({"width": width, "height": 900})
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        for path in (write_run_page(run), tmp_path / "page.html"):
            if path.name == "page.html" and not path.exists():
                write_page(run, predicted, path)
            page.goto(path.as_uri())
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert (colour == "rgb(255, 255, 255)") == (scheme == "light")
    title = page.locator("table.sortable thead th").nth(1)
    cells = page.locator("table.sortable").first.locator("tbody tr td:nth-child(2)")
    title.click()
    rising = cells.all_text_contents()
    title.click()
    assert cells.all_text_contents() == rising[::-1] != rising
    page.fill("#seconds", "60")
    rows = int(page.get_attribute("#hours", "data-rows"))
    assert page.inner_text("#hours") == f"{rows / 60:.1f}".replace(".0", "").replace(".", ",")
