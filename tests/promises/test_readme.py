"""READMEs and requirements: commands of CI, links, ids of tests, and pinned versions."""

import re

import pytest

from ocensa_nb.paths import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_readme_contains_the_two_commands_of_ci():
    commands = re.findall(r"^    (\S*(?:python3 -m venv|bin/pip install) .*)$", README, flags=re.MULTILINE)
    assert len(commands) == 2
    assert commands[0].endswith("-m ocensa_nb suite --out runs/demo")
    assert commands[1].endswith("-m pytest")


@pytest.mark.parametrize("folder", [".", "notebooks", "tests", "tests/benchmarks", "data"])
def test_readme_links_and_images_exist(folder):
    for target in re.findall(r"\]\(([^)#]+)", (ROOT / folder / "README.md").read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (ROOT / folder / target).exists(), target


def test_readme_links_to_sections_name_existing_headings():
    for target, anchor in re.findall(r"\]\(([^)#]+)#([^)]+)\)", README):
        headings = re.findall(r"^#+ (.*)$", (ROOT / target).read_text(encoding="utf-8"), flags=re.MULTILINE)
        # GitHub's rule: lower case, no punctuation, hyphens for spaces.
        assert anchor in [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings], anchor


def test_readme_has_at_most_900_words():
    assert len(README.split()) <= 900


def test_promises_table_names_existing_tests():
    promises = (ROOT / "tests/README.md").read_text(encoding="utf-8")
    named = re.findall(r"`(\w+/test_\w+\.py)::(\w+)`", promises)
    assert len(named) > 40
    for file, name in named:
        assert f"def {name}(" in (ROOT / "tests" / file).read_text(encoding="utf-8"), name


def test_constraints_pin_every_requirement():
    from packaging.requirements import Requirement

    pins = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if text := line.split("#")[0].strip():
            requirement = Requirement(text)
            pins.setdefault(requirement.name.lower(), []).append(requirement)
    for file in ("requirements.txt", "requirements-dev.txt"):
        for line in (ROOT / file).read_text(encoding="utf-8").splitlines():
            text = line.split("#")[0].strip()
            if text and not text.startswith("-r"):
                wanted = Requirement(text)
                for pin in pins[wanted.name.lower()]:
                    version = str(pin.specifier).removeprefix("==")
                    assert wanted.specifier.contains(version), text
