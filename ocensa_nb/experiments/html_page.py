"""The parts of a self-contained HTML page: escaped text, tables, figures with a narrow version, and the page itself.

The page needs no network and has light and dark colours. Its content security policy allows no script but its own.
"""

import base64
import hashlib
import io
from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NARROW = 640  # pixels of the page below which the narrow version of a figure is shown

# Contrast of text on its background: 7:1 or more, of links 5:1 or more, in both colour schemes.
_STYLE = """
:root { color-scheme: light dark; --ink: #1a1a1a; --page: #ffffff; --soft: #f2f4f7; --line: #c3c9d1; --link: #005a9c;
  --mark: #e3f4ec; --warn: #fff1cc; --muted: #4a4f57; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8eaed; --page: #16181c; --soft: #22262c; --line: #4a515b;
  --link: #8cc4ff; --mark: #1d3a2c; --warn: #453710; --muted: #b9c0c9; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 16px; max-width: 1180px; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 .5rem; }
h2 { font-size: 1.2rem; margin: 2rem 0 .5rem; padding-top: .5rem; border-top: 1px solid var(--line); }
a { color: var(--link); }
a:focus-visible, button:focus-visible, summary:focus-visible, .scroll:focus-visible { outline: 3px solid var(--link);
  outline-offset: 2px; }
.scroll { overflow-x: auto; max-width: 100%; border: 1px solid var(--line); border-radius: 6px; }
table { border-collapse: collapse; font-size: .9rem; width: 100%; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding: 8px; color: var(--muted); }
caption span { position: sticky; left: 8px; display: inline-block; max-width: calc(min(100vw, 1180px) - 64px); }
th, td { padding: 6px 10px; text-align: left; vertical-align: top; border-top: 1px solid var(--line); }
thead th { background: var(--soft); vertical-align: bottom; }
tbody th { font-weight: 600; min-width: 10rem; }
td { white-space: nowrap; }
td.text { white-space: normal; min-width: 12rem; }
tr.mark > * { background: var(--mark); }
.note, .warn { padding: 8px 12px; border-left: 4px solid var(--link); background: var(--soft); margin: .75rem 0; }
.warn { border-color: #b26a00; background: var(--warn); }
.muted { color: var(--muted); font-size: .9rem; }
figure { margin: 1rem 0; } figure img { width: 100%; height: auto; display: block; border-radius: 6px; }
figure.wide img { max-width: 860px; } figcaption { color: var(--muted); font-size: .9rem; margin-top: 4px; }
.command { display: flex; gap: 8px; align-items: flex-start; margin: 4px 0; }
.command code { flex: 1 1 auto; min-width: 18rem; white-space: pre-wrap; overflow-wrap: anywhere; font-size: .8rem;
  background: var(--soft); padding: 4px 8px; border-radius: 4px; }
button { font: inherit; font-size: .8rem; padding: 4px 10px; border: 1px solid var(--line); border-radius: 4px;
  background: var(--page); color: var(--link); cursor: pointer; }
summary { cursor: pointer; color: var(--link); }
"""

# The clipboard is not available on every page opened from a disk; then the command is selected, ready for Ctrl+C.
_SCRIPT = """
document.addEventListener("click", async (event) => {
  const button = event.target.closest("button.copy");
  if (!button) return;
  const code = button.parentElement.querySelector("code");
  let copied = false;
  try { await navigator.clipboard.writeText(code.textContent); copied = true; } catch (error) { copied = false; }
  if (!copied) {
    getSelection().selectAllChildren(code);
    try { copied = document.execCommand("copy"); } catch (error) { copied = false; }
  }
  button.textContent = copied ? "Copiado" : "Pulse Ctrl+C";
  setTimeout(() => { button.textContent = "Copiar"; }, 2000);
});
"""


class Html(str):
    """Text that is HTML already; any other text is escaped."""


def text(value: object) -> Html:
    """Return a value as HTML: itself if it is `Html`, otherwise escaped."""
    return value if isinstance(value, Html) else Html(escape(str(value)))


def element(tag: str, *content: object, **attributes: str) -> Html:
    """Return an element; `class_` is the attribute `class`."""
    given = "".join(f' {name.rstrip("_").replace("_", "-")}="{escape(value)}"' for name, value in attributes.items())
    return Html(f"<{tag}{given}>{''.join(map(text, content))}</{tag}>")


def joined(parts: Iterable[object], separator: str = " · ") -> Html:
    """Return parts as HTML with a separator in between."""
    return Html(escape(separator).join(map(text, parts)))


def link(path: str, content: object) -> Html:
    """Return a link to a file, by its path relative to the page."""
    return element("a", content, href=quote(path))


def command(line: str) -> Html:
    """Return a command with a button that copies it."""
    button = element("button", "Copiar", type="button", class_="copy")
    return element("div", element("code", line), button, class_="command")


def folded(title: str, *content: object) -> Html:
    """Return content that is shown on request."""
    return element("details", element("summary", title), *content)


def bullets(items: Iterable[object]) -> Html:
    """Return a list of items."""
    return element("ul", *(element("li", item) for item in items))


def table(
    caption: str, titles: Sequence[str], rows: Sequence[Sequence[object]], marked: Iterable[int] = (), name: int = 0
) -> Html:
    """Return a table that scrolls inside its box.

    Parameters
    ----------
    caption
        What the table shows.
    titles
        One per column.
    rows
        The cells; those that are not `Html` are escaped, and long texts wrap.
    marked
        Places of the highlighted rows.
    name
        The column that names the row.
    """
    marked = set(marked)
    head = element("tr", *(element("th", title, scope="col") for title in titles))
    body = [
        element("tr", *(_cell(value, place == name) for place, value in enumerate(row)), class_="mark" * (i in marked))
        for i, row in enumerate(rows)
    ]
    content = element(
        "table", element("caption", element("span", caption)), element("thead", head), element("tbody", *body)
    )
    # The box can be focused, so that it can be scrolled with the keyboard.
    return element("div", content, class_="scroll", tabindex="0", role="region", aria_label=caption)


def picture(wide: "Figure", narrow: "Figure", alt: str, caption: str) -> Html:
    """Return a figure with its version for narrow pages, both embedded."""
    source = f'<source media="(max-width: {NARROW}px)" srcset="{_data(narrow)}">'
    image = f'<img src="{_data(wide)}" alt="{escape(alt)}">'
    return element("figure", Html(f"<picture>{source}{image}</picture>"), element("figcaption", caption), class_="wide")


def page(title: str, *content: object) -> str:
    """Return the page, with its title as the first heading."""
    digest = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style>"
    )
    main = element("main", element("h1", title), *content)
    return f'<!doctype html>\n<html lang="es"><head>{head}</head><body>{main}<script>{_SCRIPT}</script></body></html>\n'


def _cell(value: object, is_name: bool) -> Html:
    if is_name:
        return element("th", value, scope="row")
    long = not isinstance(value, Html) and len(str(value)) > 24
    return element("td", value, class_="text") if long else element("td", value)


def _data(figure: "Figure") -> str:
    """Return a figure as the data address of an SVG, the same bytes for the same figure."""
    import matplotlib as mpl

    with mpl.rc_context({"svg.hashsalt": "ocensa", "svg.fonttype": "path"}), io.BytesIO() as file:
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
        return "data:image/svg+xml;base64," + base64.b64encode(file.getvalue()).decode()
