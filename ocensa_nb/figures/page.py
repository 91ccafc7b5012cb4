"""Pages that need no other file and no network: one base template, and pictures as data addresses."""

import base64
import functools
import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ocensa_nb.errors import num

if TYPE_CHECKING:
    from jinja2 import Template
    from matplotlib.figure import Figure

WIDE, PHONE = 8.6, 3.7  # inches: figures for a page, and for a telephone


@functools.cache
def template(path: Path) -> "Template":
    """Return a template, which may extend `base.html.j2`; what it shows is never interpreted as HTML."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    folders = FileSystemLoader([path.parent, Path(__file__).parent])
    pages = Environment(
        loader=folders, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    pages.filters |= {"sha256": _sha256, "num": num}
    return pages.get_template(path.name)


def _sha256(text: Any) -> str:
    return base64.b64encode(hashlib.sha256(str(text).encode()).digest()).decode()


def picture(draw: "Callable[[float], Figure | None]") -> list[str] | None:
    """Return a figure for a page and for a telephone as data addresses of SVG, the same bytes for the same content.

    `draw` gets the width in inches; None if it draws nothing.
    """
    import matplotlib as mpl

    addresses = []
    for width in (WIDE, PHONE):
        if (figure := draw(width)) is None:
            return None
        with mpl.rc_context({"svg.hashsalt": "ocensa", "svg.fonttype": "path"}), io.BytesIO() as file:
            figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
            addresses.append("data:image/svg+xml;base64," + base64.b64encode(file.getvalue()).decode())
    return addresses
