"""The model card of a run: what it says comes from the run, Hugging Face reads it, and names cannot break it."""

import copy
import dataclasses

import pytest
from huggingface_hub import ModelCard
from nbconvert.filters.markdown_mistune import markdown2html_mistune

from ocensa_nb.runs.run import Run
from ocensa_nb.training.card import CARD, model_card
from tests.helpers.hostile_html import EVIL, Dangers


def test_card_has_the_block_of_metadata_that_the_hub_reads(run):
    card = ModelCard.load(run.path / CARD)
    assert (card.data.language, card.data.pipeline_tag) == ("es", "text-classification")
    scores = {(result.task_name, result.metric_name): result.metric_value for result in card.data.eval_results}
    assert len(scores) == 3 * len(run.classes)
    assert scores["causa", "F1 macro, causa"] == pytest.approx(run.metrics["test"]["causa_f1_macro"], abs=1e-4)
    assert card.text.strip() == model_card(Run.load(run.path), run.metrics).strip()


def test_card_says_what_was_measured_on_what_and_how_to_repeat_it(run):
    card = model_card(run, run.metrics)
    for head, classes in run.classes.items():
        row = next(line for line in card.splitlines() if line.startswith(f"| {head} | ") and "0," in line)
        assert f"{run.metrics['test'][f'{head}_f1']:.3f}".replace(".", ",") in row
        assert f"- {head}: {len(classes)} clases: " in card
        assert run.metrics["verdict"][head]["sentence"].split(":")[0] in card
    assert "«avisos.csv»: 320 avisos de entrenamiento, 40 de validación y 40 de prueba" in card
    assert "capas congeladas: 1." in card
    assert f"    python -m ocensa_nb train --recipe cpu --model tiny --data {run.config.data}" in card


def test_card_shows_hostile_names_as_text_in_one_cell(run):
    metadata = copy.deepcopy(run.metadata)
    metadata["data"]["path"] = "/tmp/" + EVIL[1]
    metadata["data"]["columns"]["descripcion"] = "a | b\n# c"
    classes = {
        head: [f"{EVIL[i % len(EVIL)]} | {name}" for i, name in enumerate(names)] for head, names in run.classes.items()
    }
    metrics = copy.deepcopy(run.metrics)
    metrics["warnings"] = EVIL
    metrics["fields"] = {"modo": {"terms": [[EVIL[0], EVIL[1]]], "lines": [f"modo: F1 0,50 → 0,75 con «{EVIL[0]}»"]}}
    measured = {"sets": {"right": 0.914}, "interval": [0.88, 0.939], "size": 3.14, "uncovered": {EVIL[0]: 0.5}}
    metrics["suggestion"] = {"modo": measured}
    page = markdown2html_mistune(model_card(dataclasses.replace(run, metadata=metadata, classes=classes), metrics))
    dangers = Dangers(page)
    assert dangers.found == []
    assert page.count("<table>") == 1
    assert page.count("<td") == len(run.classes) * 7
    assert page.count("<h1") == 1
    assert "a | b # c" in dangers.text
    assert "conjunto_modo: 3,1 clases de media, con la correcta el 91 % de las veces (de 88 % a 93 %)." in dangers.text
    assert f"modo: F1 0,50 → 0,75 con «{EVIL[0]}»" in dangers.text
    assert all(text.strip() in dangers.text for text in EVIL[:4])
