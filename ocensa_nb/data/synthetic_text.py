"""The text of a synthetic notice, in one of two styles: a long sentence, or a short text as SAP stores it."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple, TypeVar

import yaml

SAP_WIDTH = 40  # SAP truncates the text of a notice to this many characters
_SHORT_PHRASE = 14  # the longest phrase of a short notice, in characters
_NO_ACCENTS = str.maketrans("áéíóúüÁÉÍÓÚÜ", "aeiouuAEIOUU")
_CONTRACTIONS = ((" de el ", " del "), (" a el ", " al "))

Draw = Callable[[], float]  # uniform in [0, 1)
T = TypeVar("T")


class Component(NamedTuple):
    """A maintainable part: Spanish article and name, relative frequency, plausible modes and causes."""

    article: str
    name: str
    weight: float
    modes: tuple[str, ...]
    causes: tuple[str, ...]


class Family(NamedTuple):
    """A family of equipment: the prefixes of its tags, what the crew calls it, and its parts."""

    tags: list[str]
    nouns: list[str]
    components: list[Component]


class Vocabulary(NamedTuple):
    """The content of `synthetic_vocabulary.yaml`; its comments describe each field."""

    phrases: dict[str, dict[str, list[str]]]  # head -> label -> phrases
    priority_shares: dict[str, float]
    families: dict[str, Family]
    long_shapes: dict[str, list[str]]
    short_shapes: dict[str, list[str]]
    openings: list[str]
    locations: list[str]
    fillers: list[str]


@cache
def vocabulary() -> Vocabulary:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml, if there, takes 5 ms instead of 40
    data = yaml.load(Path(__file__).with_name("synthetic_vocabulary.yaml").read_bytes(), loader)
    mode_of_code = {mode.split("(")[-1].rstrip(")"): mode for mode in data["phrases"]["modo"]}
    for name, family in data["families"].items():
        components = []
        for part, row in family.pop("components").items():
            article, _, noun = part.partition(" ")
            modes = tuple(mode_of_code[code] for code in row["modes"])
            components.append(Component(article, noun, row["weight"], modes, tuple(row["causes"])))
        data["families"][name] = Family(**family, components=components)
    return Vocabulary(**data)


def pick(options: Sequence[T], draw: Draw) -> T:
    return options[int(draw() * len(options))]


def compose_notice(
    stated: Mapping[str, str | None], family: Family, part: Component, tag: str, short_tries: float, draw: Draw
) -> str:
    text = _short_notice(stated, part, tag, draw) if draw() < short_tries else None
    short = text is not None
    text = text if text is not None else _long_notice(stated, family, part, tag, draw)
    if draw() < (0.75 if short else 0.45):
        text = text.translate(_NO_ACCENTS)
    if draw() < 0.15:
        text = _misspell(text, draw)
    if short:
        return text
    style = draw()
    return text.upper() if style < 0.06 else text[0].upper() + text[1:] if style < 0.5 else text


def _short_notice(stated: Mapping[str, str | None], part: Component, tag: str, draw: Draw) -> str | None:
    """Write in SAP's style: lower case, truncated to 40 characters. Return None if what is stated does not fit."""
    words = vocabulary()
    says = {
        head: pick([phrase for phrase in words.phrases[head][label] if len(phrase) <= _SHORT_PHRASE], draw)
        for head, label in stated.items()
        if label
    }
    tag = tag.lower().replace("-", " ")
    core = pick(words.short_shapes[_stated_key(says)], draw).format(comp=part.name, tag=tag, **says)
    if "prioridad" in says:
        core = f"{says['prioridad']} {core}" if draw() < 0.4 else f"{core} {says['prioridad']}"
    if len(core) > SAP_WIDTH:
        return None
    # only this tail, which states nothing, may be truncated
    tail = pick(words.locations, draw) if tag in core else f"{tag} {pick(words.locations, draw)}"
    text = f"{core} {tail}".lower()[:SAP_WIDTH].rstrip()
    return text if text.count(" ") >= 4 else None


def _long_notice(stated: Mapping[str, str | None], family: Family, part: Component, tag: str, draw: Draw) -> str:
    words = vocabulary()
    says = {head: pick(words.phrases[head][label], draw) for head, label in stated.items() if label}
    tag = tag if draw() < 0.7 else tag.lower().replace("-", " ")
    unit = f"{pick(family.nouns, draw)} {tag}".strip()
    shape = pick(words.long_shapes[_stated_key(says)], draw)
    text = shape.format(el=part.article, comp=part.name, unit=unit, **says)
    for apart, joined in _CONTRACTIONS:
        text = text.replace(apart, joined)
    if draw() < 0.25:
        text = f"{pick(words.openings, draw)} {text}"
    if draw() < 0.25:
        text = f"{text}, {pick(words.locations, draw)}"
    if draw() < 0.15:
        text = f"{text}, {pick(words.fillers, draw)}"
    if "prioridad" in says:
        mark = pick((", ", "; ", ". ", " - "), draw)
        text = f"{says['prioridad']}: {text}" if draw() < 0.2 else f"{text}{mark}{says['prioridad']}"
    return text


def _stated_key(says: Mapping[str, str]) -> str:
    return " and ".join(head for head in ("modo", "causa") if head in says) or "neither"


def _misspell(text: str, draw: Draw) -> str:
    """Make one error in a word of five letters or more: a letter lost, two swapped, s/z, b/v or a missing h."""
    tokens = text.split(" ")
    long_words = [i for i, token in enumerate(tokens) if len(token) > 4 and token.isalpha()]
    if not long_words:
        return text
    i = pick(long_words, draw)
    word, position, slip = tokens[i], 1 + int(draw() * (len(tokens[i]) - 3)), draw()
    if slip < 0.3:
        tokens[i] = word[:position] + word[position + 1 :]
    elif slip < 0.5:
        tokens[i] = word[:position] + word[position + 1] + word[position] + word[position + 2 :]
    else:
        for right, wrong in (("h", ""), ("v", "b"), ("z", "s"), ("b", "v"), ("s", "z")):
            if right in word:
                tokens[i] = word.replace(right, wrong, 1)
                break
    return " ".join(tokens)
