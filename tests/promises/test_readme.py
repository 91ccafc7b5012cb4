"""READMEs and requirements: commands of CI, links, ids of tests, and pinned versions."""

import re

from ocensa_nb.paths import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_readme_contains_the_two_commands_of_ci():
    commands = re.findall(r"^    (\S*(?:python3 -m venv|bin/pip install) .*)$", README, flags=re.MULTILINE)
    assert len(commands) == 2
    assert commands[0].endswith("-m ocensa_nb suite --out runs/demo")
    assert commands[1].endswith("-m pytest")


def test_readme_links_and_images_exist():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target


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
