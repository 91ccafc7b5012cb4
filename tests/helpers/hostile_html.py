"""Notices that hold HTML, and a parser that finds what a browser would execute."""

import html.parser
from pathlib import Path

from ocensa_nb.data import synthetic

EVIL = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(2)>",
    "</pre></td><svg onload=alert(3)>",
    "'\"><a href=javascript:alert(4)>x</a>",
    "![x](javascript:alert(5))",
    "$\\href{javascript:alert(6)}{x}$",
    "\x1b]8;;javascript:alert(7)\x1b\\x\x1b]8;;\x1b\\",
    "&lt;img src=x onerror=alert(8)&gt;",
    "\u202e<iframe srcdoc=&#60;script&#62;alert(9)&#60;/script&#62;>",
    "{{7*7}}{% raw %}<style>*{display:none}</style>",
]


class Dangers(html.parser.HTMLParser):
    """Collect what a browser would execute: event handlers, script URLs and hostile elements."""

    def __init__(self, page):
        super().__init__()
        self.found = []
        self.text = ""
        self.in_script = False
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.in_script = tag in ("script", "style")
        for name, value in attrs:
            if name.startswith("on") or "alert(" in (value or "") or "javascript:" in (value or ""):
                self.found.append((tag, name, value))

    def handle_endtag(self, tag):
        self.in_script = False

    def handle_data(self, data):
        if not self.in_script:
            self.text += data
        elif "alert(" in data or "*{display:none}" in data:
            self.found.append(data)


def write_notices(folder: Path) -> Path:
    """Write 120 notices with HTML in texts, labels, a title and the name of the file; return its path."""
    frame = synthetic.generate(120, seed=4)
    frame["descripcion"] = [f"{EVIL[i % len(EVIL)]} {text}" for i, text in enumerate(frame["descripcion"])]
    priorities = sorted(frame["prioridad"].unique())
    frame["prioridad"] = frame["prioridad"].map({name: EVIL[i] + name for i, name in enumerate(priorities)})
    modes = frame["modo_falla"].value_counts().index
    frame["modo_falla"] = frame["modo_falla"].map({name: EVIL[i % 10] + str(i) for i, name in enumerate(modes)})
    path = folder / "a'\"><img src=x onerror=alert(0)>.csv"
    frame.rename(columns={"familia_equipo": EVIL[0]}).to_csv(path, index=False)
    return path
