"""One Spanish term for each concept, that of the glossary of notebooks/README.md, in all texts that users read.

The texts are the strings of the package and of the notebooks' code; the docstrings of the verbs, which are their help;
the notebooks' prose and forms; and the prose of the READMEs. Names of settings are not prose: code spans and code
blocks are removed first, and the values of f-strings.
"""

import ast
import json
import re
from collections.abc import Iterator

import pytest
from IPython.core.inputtransformer2 import TransformerManager

from ocensa_nb.paths import ROOT

READMES = ("README.md", "notebooks/README.md", "tests/README.md", "data/README.md")

# What is not written, for each term of the glossary.
INSTEAD_OF = {
    "aviso": r"notificaci[oó]n(es)?\b|\bwarnings?\b",
    "etiqueta": r"\blabels?\b",
    "clase más / menos frecuente": r"(filas|avisos) de la (mayor|menor)\b|clases? (mayor|menor|mayoritari|minoritari)",
    "entrenamiento, validación, prueba": r"(?<!_)\b(train|val|test)\b(?! --)",
    "corrida": r"\b(el|los|un|cada) runs?\b",
    "receta": r"(?<!--)\brecipes?\b|\bpresets?\b",
    "codificador": r"\b(encoders?|backbones?)\b",
    "batch": r"\blotes?\b|mini-?batch",
    "época": r"\bepochs?\b",
    "tasa de aprendizaje": r"ritmo de aprendizaje|learning rate",
    "checkpoint": r"puntos? de control",
    "parada anticipada": r"early[ -]stopping|parada temprana",
    # «precisión» alone is the metric: the title of a column, or the word that a text defines.
    "formato numérico": r"(?<!\*)\bprecisión\b(?!\*| mixta)|formato de (los )?números",
    "exhaustividad (recall)": r"(?<!\()\brecall\b|sensibilidad",
    "exactitud (accuracy)": r"(?<!\()\baccuracy\b|pierde exactitud",
    "mejora acumulada": r"peldaños?|escalera",
    "ejecución automática": r"sin nadie delante|desatendid|\bheadless\b",
    "cuaderno": r"(?<![→-] )(?<!Import )\bnotebooks?\b(?!/)",
    "comando": r"\bórdenes\b|\b(la|esta|cada|misma|otra|una) orden\b(?! en que)|\bverbos?\b",
    "máquina": r"\b(este|ese|su|otro|un|dos) equipos?\b(?! de planta)|uso del equipo|ordenador|\bcomputador\b",
}
# Phrases that readers did not understand, and words that are not used so in Latin America.
PHRASES = (
    r"no hay panel",
    r"lo hecho queda",
    r"de lado para",
    r"lo demás manda|manda sobre",
    r"reparto: (train|entren)",
    r"\bratón\b",
    r"\btrozos?\b",
    r"\benseñan?\b",
    r"(?<!qui)\bvale (como|una?|el|la)\b|\bno vale\b",
    r"\b(tus?|puedes|debes|tienes|quieres)\b",
)
SPANISH = re.compile(r"[áéíóúñü¿¡«»]|\b(de|del|la|el|los|las|que|una?|en|para|por|con|se|no)\b", re.IGNORECASE)
METRIC = "precisión"  # the title of a column


def strings_of(source: str, with_docstrings: bool = False) -> Iterator[tuple[int, str]]:
    """Yield the line and the text of each string of Python code, with `{}` for the values of an f-string."""
    tree = ast.parse(source)
    skipped = {part for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    if not with_docstrings:
        skipped |= {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield node.lineno, "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in skipped:
            yield node.lineno, node.value


def prose_of(markdown: str) -> Iterator[tuple[int, str]]:
    """Yield the lines of a Markdown text without code, link targets and quotes, which are in English."""
    inside = False
    for number, line in enumerate(markdown.splitlines(), 1):
        inside ^= line.startswith("```")
        if not inside and not line.startswith(("    ", ">", "```")):
            yield number, re.sub(r"`[^`]*`|(?<=\])\([^)]*\)|https?://\S+", "`", line)


def texts_of_notebook(path) -> Iterator[tuple[int, str]]:
    for number, cell in enumerate(json.loads(path.read_text(encoding="utf-8"))["cells"]):
        source = "".join(cell["source"])
        form = re.findall(r"^# @(?:markdown|title) (.*)", source, flags=re.MULTILINE)
        prose = source if cell["cell_type"] == "markdown" else "\n".join(form)
        yield from ((number, text) for _, text in prose_of(prose))
        if cell["cell_type"] == "code":
            python = TransformerManager().transform_cell(source)  # without IPython's `!command`
            yield from ((number, text) for _, text in strings_of(python))


def spanish_texts() -> dict[str, list[str]]:
    """Return the Spanish texts by group (package, notebooks, readmes), each as `file:line: text`."""
    found = {"package": [], "notebooks": [], "readmes": []}
    for path in sorted((ROOT / "ocensa_nb").rglob("*.py")):
        is_help = path.parent.name == "cli" and path.name == "verbs.py"
        found["package"] += [(path, *text) for text in strings_of(path.read_text(encoding="utf-8"), is_help)]
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        found["notebooks"] += [(path, *text) for text in texts_of_notebook(path)]
    for path in (ROOT / name for name in READMES):
        found["readmes"] += [(path, *text) for text in prose_of(path.read_text(encoding="utf-8"))]
    return {
        group: [f"{path.relative_to(ROOT)}:{line}: {text}" for path, line, text in texts if SPANISH.search(text)]
        for group, texts in found.items()
    }


TEXTS = spanish_texts()


def rejected(text: str) -> list[str]:
    """Return the terms of the glossary, and the phrases, that a text does not respect."""
    said = text.split(": ", 1)[-1]
    if said == METRIC:
        return []
    rules = {**INSTEAD_OF, **{phrase: phrase for phrase in PHRASES}}
    return [term for term, pattern in rules.items() if re.search(pattern, said, flags=re.IGNORECASE)]


@pytest.mark.parametrize("group", TEXTS)
def test_texts_use_the_terms_of_the_glossary(group):
    wrong = [f"{', '.join(terms)} ← {text}" for text in TEXTS[group] if (terms := rejected(text))]
    assert not wrong, "\n" + "\n".join(wrong)


def test_texts_are_found_in_every_group():
    assert len(TEXTS["package"]) > 450
    assert len(TEXTS["notebooks"]) > 150
    assert len(TEXTS["readmes"]) > 150
    for start in ("ocensa_nb/config.py", "notebooks/03_train.ipynb", "tests/README.md"):
        assert sum(text.startswith(start) for group in TEXTS.values() for text in group) > 30, start


@pytest.mark.parametrize("name", INSTEAD_OF)
def test_term_instead_of_which_another_is_rejected_is_in_the_glossary(name):
    section = (ROOT / "notebooks/README.md").read_text(encoding="utf-8").partition("\n## Glosario\n")[2]
    terms = re.findall(r"^\| ([^|]+) \|", section.partition("\n## ")[0], flags=re.MULTILINE)
    assert name in [term.replace("*", "") for term in terms]


@pytest.mark.parametrize(
    ("text", "term"),
    [
        ("Peldaño, cada uno sobre los anteriores", "mejora acumulada"),
        ("avisos de la mayor", "clase más / menos frecuente"),
        ("Reparto: train 6400, val 800", "entrenamiento, validación, prueba"),
        ("En precisión, el valor", "formato numérico"),
        ("El recall de la clase", "exhaustividad (recall)"),
        ("Todo verbo acepta --json", "comando"),
        ("No se puede leer el punto de control.", "checkpoint"),
    ],
)
def test_rejected_finds_the_term_in_a_sentence_without_it(text, term):
    assert term in rejected(f"file.py:1: {text}")


def test_strings_of_code_are_found_without_docstrings_and_with_joined_parts():
    source = 'def f(x):\n    """Docstring."""\n    raise ValueError(f"La clase {x} " "no existe.")\n'
    assert list(strings_of(source)) == [(3, "La clase {} no existe.")]
    assert (2, "Docstring.") in list(strings_of(source, with_docstrings=True))


def test_prose_of_markdown_is_found_without_code_and_addresses():
    lines = ["uno `code`", "    code", "```", "code", "```", "[dos](url)"]
    assert list(prose_of("\n".join(lines))) == [(1, "uno `"), (6, "[dos]`")]
