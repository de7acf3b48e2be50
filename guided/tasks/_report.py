"""A report as one HTML file that needs nothing else: pictures inside, no scripts, no links out."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from guided.core.text import encodable

if TYPE_CHECKING:
    from PIL import Image

_STYLE = """
:root { color-scheme: light dark; --ink: #23212b; --soft: #6d6879; --paper: #fbfafd;
  --card: #ffffff; --line: #e4e0ec; --accent: #7a4fd0; --bar: #d9ccf4; --bad: #c2410c; }
@media (prefers-color-scheme: dark) { :root { --ink: #ebe8f2; --soft: #a49eb3; --paper: #17151d;
  --card: #211e2a; --line: #373243; --accent: #b79cf0; --bar: #4a3a75; --bad: #fb923c; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 17px/1.6 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1000px; margin: 0 auto; padding: 3.5rem 1.25rem 5rem; }
h1 { font-size: 2.3rem; line-height: 1.15; letter-spacing: -0.02em; margin: 0 0 0.6rem; }
h2 { font-size: 1.4rem; letter-spacing: -0.01em; margin: 3.2rem 0 0.4rem; }
p { max-width: 42rem; margin: 0.4rem 0 1rem; }
.lead { font-size: 1.15rem; color: var(--soft); }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(var(--cell), 1fr));
  gap: 0.9rem; margin: 1.2rem 0; }
figure { margin: 0; padding: 0.5rem; background: var(--card); border: 1px solid var(--line);
  border-radius: 12px; }
figure img { display: block; width: 100%; height: auto; border-radius: 7px; }
figure .pair { display: grid; grid-template-columns: 1fr 1fr; gap: 0.4rem; }
figcaption { font-size: 0.82rem; line-height: 1.4; padding: 0.5rem 0.2rem 0.1rem; }
figcaption b { font-weight: 600; }
ul { padding-left: 1.1rem; max-width: 42rem; } li { margin: 0.15rem 0; }
.row { display: grid; grid-template-columns: 6.5rem 1fr 3rem; gap: 0.6rem; align-items: center;
  font-size: 0.82rem; line-height: 1.7; }
.row .track { background: var(--line); border-radius: 4px; height: 0.55rem; overflow: hidden; }
.row .fill { display: block; height: 100%; background: var(--accent); border-radius: 4px; }
.row .number { text-align: right; font-variant-numeric: tabular-nums; color: var(--soft); }
.wrong { color: var(--bad); } .soft { color: var(--soft); }
.two { display: grid; grid-template-columns: minmax(220px, 1fr) 2fr; gap: 1.6rem;
  align-items: start; margin: 1.2rem 0; }
@media (max-width: 640px) { .two { grid-template-columns: 1fr; } h1 { font-size: 1.8rem; } }
code { font: 0.85em ui-monospace, "SF Mono", Menlo, Consolas, monospace; background: var(--card);
  border: 1px solid var(--line); border-radius: 5px; padding: 0.1em 0.35em; }
footer { margin-top: 4rem; padding-top: 1rem; border-top: 1px solid var(--line);
  font-size: 0.85rem; color: var(--soft); }
"""


@dataclass(frozen=True)
class Section:
    """A chapter of a report: its title, its body as HTML, numbers worth keeping by name."""

    title: str
    body: str
    scores: Mapping[str, float]


def text(value: object) -> str:
    """Any value as HTML text: nothing in it can be markup."""
    return html.escape(encodable(str(value)), quote=True)


def paragraph(words: str, kind: str = "") -> str:
    """A paragraph of plain text."""
    return f'<p class="{text(kind)}">{text(words)}</p>' if kind else f"<p>{text(words)}</p>"


def picture(image: Image.Image, told: str) -> str:
    """A picture inside the page; ``told`` describes it to those who do not see it."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    data = base64.b64encode(buffer.getvalue()).decode()
    size = f'width="{image.width}" height="{image.height}"'
    return f'<img {size} alt="{text(told)}" src="data:image/png;base64,{data}">'


def figure(images: Sequence[Image.Image], told: str, caption: str = "") -> str:
    """One picture, or two side by side; ``caption`` is HTML, by default what is told."""
    shown = "".join(picture(image, told) for image in images)
    inside = f'<div class="pair">{shown}</div>' if len(images) > 1 else shown
    return f"<figure>{inside}<figcaption>{caption or text(told)}</figcaption></figure>"


def grid(figures: Iterable[str], cell: int = 140) -> str:
    """Figures in as many columns as fit; ``cell`` is the least width of one in pixels."""
    return f'<div class="grid" style="--cell: {cell}px">{"".join(figures)}</div>'


def bars(values: Mapping[str, float]) -> str:
    """Shares in [0, 1] by name, as bars with their numbers."""
    rows = []
    for name, value in values.items():
        percent = round(100 * min(max(value, 0.0), 1.0), 1)
        rows.append(
            f'<div class="row"><span>{text(name)}</span>'
            f'<span class="track"><span class="fill" style="width: {percent}%"></span></span>'
            f'<span class="number">{percent:.0f} %</span></div>'
        )
    return "".join(rows)


def points(lines: Iterable[str]) -> str:
    """A list of lines of plain text."""
    return f"<ul>{''.join(f'<li>{text(line)}</li>' for line in lines)}</ul>"


def beside(left: str, right: str) -> str:
    """Two pieces of HTML next to each other."""
    return f'<div class="two"><div>{left}</div><div>{right}</div></div>'


def page(title: str, lead: str, sections: Iterable[Section], foot: str) -> str:
    """The whole report; ``foot`` is HTML."""
    body = "".join(f"<section><h2>{text(s.title)}</h2>{s.body}</section>" for s in sections)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{text(title)}</title><style>{_STYLE}</style></head>"
        f'<body><main><h1>{text(title)}</h1><p class="lead">{text(lead)}</p>{body}'
        f"<footer>{foot}</footer></main></body></html>\n"
    )
