"""The model card of a run, `RUN/README.md`: all of it from what the run stores, nothing computed again."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ocensa_nb.config import RECIPES
from ocensa_nb.errors import listed, num
from ocensa_nb.evaluation.metrics import MODEL_TITLES
from ocensa_nb.evaluation.verdict import describe_near, describe_sets
from ocensa_nb.files.atomic import write_text
from ocensa_nb.models.catalogue import CATALOGUE
from ocensa_nb.runs.run import Run
from ocensa_nb.runtime.commands import changes, command_line

CARD, TEMPLATE, TASK = "README.md", "card.md.j2", "text-classification"
_MARKUP = re.compile(r"[&<>|\\`*\[\]$#~{}!]|(?<![^\W_])_|_(?![^\W_])")
F1_NAMES = {"f1": "F1 ponderado", "f1_macro": "F1 macro", "accuracy": "Exactitud"}


def write_card(run: Run, metrics: Mapping[str, Any]) -> None:
    """Write the card of a run with the content of its metrics.json, after the block that Hugging Face's hub reads."""
    run.check_held()
    write_text(run.path / CARD, f"---\n{_hub_block(run, metrics)}\n---\n\n{model_card(run, metrics)}")


def model_card(run: Run, metrics: Mapping[str, Any]) -> str:
    """Return the card of a run in Spanish, as Markdown: data, quality, limits, and the command that repeats it."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    folder, data, config = FileSystemLoader(Path(__file__).parent), run.metadata["data"], run.config
    page = Environment(
        loader=folder, finalize=_plain, undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
    page.filters |= {"listed": listed, "num": num}
    recipe = min(RECIPES, key=lambda name: len(changes(config, name)))
    sets = [describe_sets(head, measured) for head, measured in metrics["suggestion"].items()]
    return page.get_template(TEMPLATE).render(
        run=run,
        metrics=metrics,
        data=data,
        name=Path(data["path"]).name,
        columns=[f"{role} ← «{name}»" for role, name in data["columns"].items()],
        titles=F1_NAMES,
        models=MODEL_TITLES,
        gains={head: _gain(head, metrics) for head in run.classes},
        measured=[*describe_near(metrics["near_duplicates"]), *sets],
        classes={head: _by_rows(names, data["class_rows"][head]) for head, names in run.classes.items()},
        command=command_line(config.replace(out=""), recipe),
    )


def _gain(head: str, metrics: Mapping[str, Any]) -> str:
    pair = metrics["comparison"].get(head, {}).get(f"{metrics['sources'][head]}-linear")
    if not pair:
        return "—"
    return "{} ({} a {})".format(*(num(pair["f1"][name], 3, "+") for name in ("difference", "low", "high")))


def _by_rows(names: Sequence[str], rows: Sequence[int]) -> list[str]:
    """Return the classes of a label with their training rows, the most frequent first."""
    most = sorted(zip(names, rows, strict=True), key=lambda part: -part[1])
    return [f"{name} ({num(count)})" for name, count in most]


def _hub_block(run: Run, metrics: Mapping[str, Any]) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    name, path = run.config.model, Path(run.metadata["data"]["path"])
    base = CATALOGUE[name].hub_id if name in CATALOGUE else name if re.fullmatch(r"[\w.-]+/[\w.-]+", name) else ""
    results = []
    for head in run.classes:
        names = {"task_name": head, "dataset_config": head, "dataset_split": "test"}
        for metric, title in F1_NAMES.items():
            kind, value = metric.removesuffix("_macro"), round(metrics["test"][f"{head}_{metric}"], 4)
            results.append(EvalResult(TASK, "csv", path.name, kind, value, **names, metric_name=f"{title}, {head}"))
    known = {"base_model": base} if base and not Path(name).exists() else {}
    common = {"language": "es", "pipeline_tag": TASK, "model_name": run.path.name}
    return ModelCardData(**common, **known, eval_results=results).to_yaml()


def _plain(value: object) -> object:
    """Return a text with what Markdown, HTML or MathJax could read as markup replaced by character references."""
    if hasattr(value, "__html__"):  # marked by the filter `safe`: a command
        return value
    return _MARKUP.sub(lambda found: f"&#{ord(found[0])};", " ".join(str(value).split()))
