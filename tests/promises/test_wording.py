"""One Spanish term for each concept, that of the glossary of notebooks/README.md, in all texts that users read.

The texts are the strings of the package and of the notebooks' code; the docstrings of the verbs, which are their help;
the notebooks' prose and forms; and the prose of the READMEs. Names of settings are not prose: code spans and code
blocks are removed first, and the values of f-strings.
"""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from IPython.core.inputtransformer2 import TransformerManager

from ocensa_nb.paths import ROOT

READMES = ("README.md", "notebooks/README.md", "tests/README.md", "data/README.md")

# What is not written, for each term of the glossary.
INSTEAD_OF = {
    "aviso": r"notificaci[oó]n(es)?\b|\bwarnings?\b",
    "etiqueta": r"\blabels?\b",
    "clase más / menos frecuente": r"(filas|avisos) de la (mayor|menor)\b|clases? (mayor|menor|mayoritari|minoritari)",
    "entrenamiento, validación, prueba": r"\b(train|val|test)\b",
    "corrida": r"\b(el|los|un|cada) runs?\b",
    "receta": r"\brecipes?\b(?!:)|\bpresets?\b",
    "codificador": r"\b(encoders?|backbones?)\b",
    "batch": r"\blotes?\b|mini-?batch",
    "época": r"\bepochs?\b",
    "tasa de aprendizaje": r"ritmo de aprendizaje|learning rate",
    "checkpoint": r"puntos? de control",
    "parada anticipada": r"early[ -]stopping|parada temprana",
    # «precisión» alone is the metric: the title of a column, or the word that a text defines.
    "formato numérico": r"(?<!\*)\bprecisión\b(?!\*| mixta)|formato de (los )?números",
    "exhaustividad (recall)": r"(?<!\()\brecall\b|sensibilidad",
    "exactitud (accuracy)": r"(?<!\()\baccuracy\b",
    "confianza": r"\bscores?\b|\b(certeza|seguridad) del modelo\b",
    "calibración": r"\bcalibrados? de (la )?confianza\b|\brecalibra",
    "cobertura": r"\bcoverage\b|\bcubrimiento\b",
    "modelo simple": r"\bfloor\b|\bmodelos? (base|sencillos?|de referencia)\b|l[ií]nea base",
    "mezcla": r"\bblend\b|\bensambles?\b|\bmixtura\b",
    "mejora acumulada": r"peldaños?|escalera",
    "ejecución automática": r"sin nadie delante|desatendid|\bheadless\b",
    "cuaderno": r"(?<!Import )\bnotebooks?\b(?!/)",
    "comando": r"\bórdenes\b|\b(la|esta|cada|misma|otra|una) orden\b|\bverbos?\b",
    "máquina": r"\b(este|ese|su|otro|un|dos) equipos?\b|uso del equipo|ordenador|\bcomputador\b",
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


def strings_of(source: str, with_docstrings: bool = False) -> Iterator[str]:
    """Yield the strings of Python code, with `{}` for the values of an f-string."""
    tree = ast.parse(source)
    skipped = {part for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    if not with_docstrings:
        skipped |= {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in skipped:
            yield node.value


def prose_of(markdown: str) -> Iterator[str]:
    """Yield the paragraphs, items and table rows of a Markdown text, each in one line.

    Code, addresses and quotes, which are in English, are removed.
    """
    code = r"^```[^`]*^```$|^(?:    |>)[^\n]*$|`[^`]*`"
    prose = re.sub(code + r"|(?<=\])\([^)]*\)|https?://\S+", "`", markdown, flags=re.MULTILINE)
    for block in re.split(r"\n(?=\n|\||#|[-*] |\d+\. )", prose):
        yield " ".join(block.split())


def texts_of_notebook(path: Path) -> Iterator[str]:
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            yield from prose_of(source)
        else:
            for line in re.findall(r"^# @(?:markdown|title) (.*)", source, flags=re.MULTILINE):
                yield from prose_of(line)
            yield from strings_of(TransformerManager().transform_cell(source))  # without IPython's `!command`


def spanish_texts() -> dict[str, list[tuple[str, str]]]:
    """Return the Spanish texts by group (package, notebooks, readmes), each with the name of its file."""
    modules = sorted((ROOT / "ocensa_nb").rglob("*.py"))
    help_texts = [ROOT / f"ocensa_nb/cli/{name}.py" for name in ("verbs", "daily_verbs")]
    notebooks = sorted((ROOT / "notebooks").glob("*.ipynb"))
    found = {
        "package": {path: strings_of(path.read_text(encoding="utf-8"), path in help_texts) for path in modules},
        "notebooks": {path: texts_of_notebook(path) for path in notebooks},
        "readmes": {ROOT / name: prose_of((ROOT / name).read_text(encoding="utf-8")) for name in READMES},
    }
    return {
        group: [
            (path.relative_to(ROOT).as_posix(), text)
            for path, texts in files.items()
            for text in texts
            if SPANISH.search(text)
        ]
        for group, files in found.items()
    }


TEXTS = spanish_texts()


def rejected(text: str) -> list[str]:
    """Return the terms of the glossary, and the phrases, that a text does not respect."""
    if text == METRIC:
        return []
    rules = {**INSTEAD_OF, **{phrase: phrase for phrase in PHRASES}}
    return [term for term, pattern in rules.items() if re.search(pattern, text, flags=re.IGNORECASE)]


@pytest.mark.parametrize("group", TEXTS)
def test_texts_use_the_terms_of_the_glossary(group):
    wrong = [f"{file}: {', '.join(terms)} ← {text}" for file, text in TEXTS[group] if (terms := rejected(text))]
    assert not wrong, "\n" + "\n".join(wrong)


def test_texts_are_found_in_every_group():
    assert len(TEXTS["package"]) > 450
    assert len(TEXTS["notebooks"]) > 120
    assert len(TEXTS["readmes"]) > 150
    files = [file for group in TEXTS.values() for file, _ in group]
    for name in ("ocensa_nb/config.py", "ocensa_nb/cli/verbs.py", "notebooks/03_train.ipynb", "tests/README.md"):
        assert files.count(name) > 20, name


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
        ("El modelo de referencia va mejor", "modelo simple"),
        ("Predice con el blend", "mezcla"),
    ],
)
def test_rejected_finds_the_term_in_a_sentence_without_it(text, term):
    assert term in rejected(text)


def test_strings_of_code_are_joined_and_without_docstrings():
    source = 'def f(x):\n    """Docstring."""\n    raise ValueError(f"La clase {x} " "no existe.")\n'
    assert list(strings_of(source)) == ["La clase {} no existe."]
    assert "Docstring." in list(strings_of(source, with_docstrings=True))


def test_prose_of_markdown_is_joined_and_without_code_and_addresses():
    lines = ["El punto de", "control `x`.", "    code", "```", "code", "```", "- [dos](url)"]
    assert list(prose_of("\n".join(lines))) == ["El punto de control `. ` `", "- [dos]`"]
