"""The README: its two commands are those CI runs, and what it names is there."""

import re

from ocensa_nb.paths import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_readme_has_the_two_commands_where_ci_finds_them():
    commands = re.findall(r"^    (\S*(?:python3 -m venv|bin/pip install) .*)$", README, flags=re.MULTILINE)
    assert len(commands) == 2
    assert commands[0].endswith("-m ocensa_nb suite --out runs/demo")
    assert commands[1].endswith("-m pytest")


def test_every_picture_and_link_of_the_readme_is_there():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target


def test_every_promise_names_a_test_that_exists():
    promises = (ROOT / "tests/README.md").read_text(encoding="utf-8")
    named = re.findall(r"`(\w+/test_\w+\.py)::(\w+)`", promises)
    assert len(named) > 40
    for file, name in named:
        assert f"def {name}(" in (ROOT / "tests" / file).read_text(encoding="utf-8"), name


def test_the_constraints_pin_every_requirement():
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
