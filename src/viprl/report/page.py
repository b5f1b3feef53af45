"""Sections, tiles and tables as one HTML document that needs no other file."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from viprl.report.canvas import inline_svg
from viprl.report.findings import Finding
from viprl.report.words import VERDICTS

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Drawing:
    """A figure with its file name, its title and an explanation."""

    name: str
    title: str
    figure: Figure
    caption: str


@dataclass(frozen=True)
class Section:
    """A heading, paragraphs, drawings and tables (already HTML), in this order."""

    title: str
    lead: Sequence[str] = ()
    drawings: Sequence[Drawing] = ()
    html: str = ""


Glossary = Sequence[tuple[str, str]]
"""(term, explanation)."""

INTERVAL = (
    "95 % interval",
    "contains the true mean in 95 of 100 repetitions if the n values are independent. If it includes “no difference”, "
    "the difference is within noise.",
)

_REFERENCES = {
    "uniform": "every prompt gets the same number of rollouts, as without viprl. Its variance ratio is 1.",
    "oracle": "knows the true reward variances. It cannot be used in a training; it shows the best that any "
    "prediction could reach.",
    "random": "splits the budget at random within the bounds. It shows what unequal counts cost that follow nothing.",
}
"""Strategies that others are compared with."""
_STYLE = """
:root{--ink:#1f2328;--muted:#66707b;--grid:#e4e7eb;--page:#fff;--soft:#f6f7f9;--good:#00714f;--bad:#b34a00}
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ec;--muted:#9aa4ae;--grid:#353b42;--page:#15181c;--soft:#1d2126;
--good:#4cc79e;--bad:#f0965a}figure svg{filter:brightness(1.25)}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:16px/1.55 system-ui,-apple-system,"Segoe UI",
Roboto,"Helvetica Neue",Arial,sans-serif}
main{max-width:1120px;margin:0 auto;padding:56px 32px 96px}
h1{font-size:30px;line-height:1.2;letter-spacing:-.015em;margin:0 0 6px;font-weight:650}
h2{font-size:21px;letter-spacing:-.01em;margin:0 0 8px;font-weight:650}
h3{font-size:15px;margin:0 0 8px;font-weight:600}
p{margin:0 0 10px;max-width:74ch}h1,h2,h3,p,dt,dd,figcaption,.tile{overflow-wrap:anywhere}
.muted,figcaption,dd{color:var(--muted)}
section{margin-top:64px}.run+.run{margin-top:44px}.run h2{margin-top:32px}
.tiles{display:grid;grid-template-columns:repeat(3,1fr);gap:16px;margin:20px 0}
.tile{background:var(--soft);border-radius:10px;padding:20px 22px}
.tile b{display:block;font-size:38px;line-height:1.15;letter-spacing:-.02em;font-weight:650;
font-variant-numeric:tabular-nums}
.tile span{display:block;color:var(--muted);font-size:14.5px;line-height:1.4;margin-top:4px}
.tile i{display:block;font-style:normal;font-size:13px;font-weight:600;margin-top:10px;
color:var(--muted)}
.tile small{display:block;color:var(--muted);font-size:13px;margin-top:2px}
.tile i.good{color:var(--good)}.tile i.bad{color:var(--bad)}
dl{display:grid;grid-template-columns:max-content 1fr;gap:4px 18px;margin:28px 0 0;
font-size:14.5px;max-width:90ch}
dt{font-weight:600}dd{margin:0}
.figures{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,440px),1fr));
gap:40px 48px;margin-top:26px}
figure{margin:0;min-width:0}figure svg{display:block;width:100%;height:auto;overflow:visible}
figure svg text{font-family:inherit!important}
figcaption{font-size:13.5px;line-height:1.45;margin-top:10px}
.scroll{overflow-x:auto;margin-top:22px}
table{border-collapse:collapse;font-size:14.5px;font-variant-numeric:tabular-nums;min-width:min(100%,520px)}
table:has(th:nth-child(5)){min-width:820px}
caption{text-align:left;color:var(--muted);padding-bottom:6px}
caption span{display:inline-block;max-width:min(74ch,calc(100vw - 32px))}
caption,td:first-child{overflow-wrap:anywhere}td:first-child{min-width:9em}
th,td{text-align:left;padding:8px 28px 8px 0;border-bottom:1px solid var(--grid);vertical-align:top}
th{font-weight:600;color:var(--muted);font-size:13.5px}
@media(max-width:640px){main{padding:28px 16px 64px}section{margin-top:48px}h1{font-size:25px}
.tiles,dl{grid-template-columns:1fr}dd{margin-bottom:8px}.figures{gap:36px}th,td{padding-right:18px}}
@media print{main{padding:0}figure,.tile,tr{break-inside:avoid}}
"""


def page(
    title: str,
    subtitle: str,
    headlines: Sequence[tuple[str, Sequence[Finding]]],
    sections: Sequence[Section],
    glossary: Glossary,
) -> str:
    """The document. All text is escaped.

    Args:
        title: heading of the page.
        subtitle: one line below it.
        headlines: (heading, findings) of each run, drawn as tiles with their sentences.
        sections: the rest of the page.
        glossary: terms, explained before the sections.
    """
    heads = "".join(_headline(heading, findings) for heading, findings in headlines)
    body = "".join(_section(index, section) for index, section in enumerate(sections))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body><main>"
        f'<h1>{escape(title)}</h1><p class="muted">{escape(subtitle)}</p>'
        f"{heads}{_terms(glossary)}{body}</main></body></html>\n"
    )


def references(strategies: Collection[str]) -> Glossary:
    """The explanation of those strategies that others are compared with."""
    return [(name.capitalize(), words) for name, words in _REFERENCES.items() if name in strategies]


def table(head: Iterable[str], rows: Iterable[Sequence[str]], caption: str = "") -> str:
    """A table as HTML. All text is escaped."""
    title = f"<caption><span>{escape(caption)}</span></caption>" if caption else ""
    header = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    table = f"<table>{title}<thead><tr>{header}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="scroll">{table}</div>'


def _headline(heading: str, findings: Sequence[Finding]) -> str:
    title = f"<h2>{escape(heading)}</h2>" if heading else ""
    if not findings:
        return f"{title}<p>The run logged neither gradient variance nor advantages. See the curves below.</p>"
    tiles = "".join(_tile(finding) for finding in findings)
    sentences = "".join(f"<p>{escape(finding.sentence)}</p>" for finding in findings)
    return f'<div class="run">{title}<div class="tiles">{tiles}</div>{sentences}</div>'


def _tile(finding: Finding) -> str:
    tone = {finding.better: "good", "within noise": "", "unknown": "", "": ""}.get(finding.verdict, "bad")
    clearly = "clearly " if finding.verdict in ("lower", "higher") else ""
    tag = f'<i class="{tone}">{clearly}{VERDICTS[finding.verdict]}</i>' if finding.verdict else ""
    basis = f"<small>{escape(finding.basis)}</small>" if finding.basis else ""
    return f'<div class="tile"><b>{escape(finding.value)}</b><span>{escape(finding.label)}</span>{tag}{basis}</div>'


def _terms(glossary: Glossary) -> str:
    return "<dl>" + "".join(f"<dt>{escape(term)}</dt><dd>{escape(text)}</dd>" for term, text in glossary) + "</dl>"


def _section(index: int, section: Section) -> str:
    figures = "".join(
        f"<figure><h3>{escape(drawing.title)}</h3>{inline_svg(drawing.figure, f's{index}f{at}')}"
        f"<figcaption>{escape(drawing.caption)}</figcaption></figure>"
        for at, drawing in enumerate(section.drawings)
    )
    lead = "".join(f"<p>{escape(text)}</p>" for text in section.lead)
    grid = f'<div class="figures">{figures}</div>' if figures else ""
    return f"<section><h2>{escape(section.title)}</h2>{lead}{grid}{section.html}</section>"
