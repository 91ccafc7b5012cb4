"""One notice, typed and explained: a box, and its answer as a table with the words shaded by their share."""

from html import escape
from pathlib import Path

import ipywidgets as ipw
import numpy as np
from IPython.display import HTML, display

from ocensa_nb.evaluation.explain import ExplainedNotice, explain, field_titles, parse_fields
from ocensa_nb.evaluation.metrics import MODEL_NAMES
from ocensa_nb.evaluation.predictor import Predictor
from ocensa_nb.figures.page import template
from ocensa_nb.figures.style import COLOURS
from ocensa_nb.files.notice_file import NoticeFile
from ocensa_nb.notebook import session
from ocensa_nb.notebook.controls import button, guarded, panel
from ocensa_nb.runs.run import Run

TEMPLATE = Path(__file__).with_name("notice.html.j2")
DARKEST = 150  # of 255: the text has to be legible


def notice_form(run: Run, notice: str, examples: NoticeFile, source: str) -> "NoticeForm | None":
    """Return a box for a notice, with its answer; without a user, show the answer alone.

    Without a notice it explains the first of `examples` that has a text.
    """
    predictor, fields, text = Predictor.load(run), {}, notice
    if not notice:
        row = int(np.argmax(examples.texts != ""))
        cells = examples.cells.iloc[row].to_dict()
        cells |= {role: cells[name] for role, name in examples.columns.items()}
        fields, text = {role: cells[role] for role in field_titles(predictor) if role in cells}, cells["descripcion"]
    if session.is_interactive():
        return NoticeForm(predictor, text, fields, source)
    display(HTML(as_html(explain(predictor, text, fields, source))))
    return None


class NoticeForm:
    """The box: the description, a line for each other column of the run, and the button."""

    def __init__(self, predictor: Predictor, text: str, fields: dict[str, str], source: str) -> None:
        self._predictor, self._source = predictor, source
        lines = [f"{title} = {fields.get(role, '')}" for role, title in field_titles(predictor).items()]
        self.text = ipw.Textarea(text, layout={"width": "100%", "height": "60px"})
        self.fields = ipw.Textarea("\n".join(lines), layout={"width": "100%", "height": f"{20 * len(lines) + 12}px"})
        self.answer = ipw.HTML()
        self.button = button("Explicar", self._explain, self._say, "Predice el aviso y dice qué palabras lo deciden")
        self.box = panel(self.text, *([self.fields] if lines else []), self.button, self.answer)
        guarded(self._explain, self._say)

    def _ipython_display_(self) -> None:
        display(self.box)

    def _explain(self) -> None:
        fields = parse_fields([line for line in self.fields.value.splitlines() if line.strip()])
        self.answer.value = as_html(explain(self._predictor, self.text.value, fields, self._source))

    def _say(self, sentence: str) -> None:
        self.answer.value = f'<div class="ocensa-state">{escape(sentence)}</div>'


def as_html(notice: ExplainedNotice) -> str:
    """Return the explanation as an HTML table; what is in the notice is shown, and never interpreted."""
    page = template(TEMPLATE)
    return page.render(notice=notice, colours=COLOURS, darkest=DARKEST, models=MODEL_NAMES)
