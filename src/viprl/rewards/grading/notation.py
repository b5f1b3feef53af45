r"""One notation for what people write in several ways: Unicode, plain text and LaTeX variants become plain LaTeX.

Only the text is rewritten, by rules that read it once from left to right, so the cost grows with its length alone. What
an answer means is decided elsewhere.
"""

from __future__ import annotations

import functools
import re
import unicodedata

LONGEST = 2000
"""Longest answer that is rewritten and compared mathematically, in characters."""

_SUPERSCRIPTS, _SUBSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿⁱ", "₀₁₂₃₄₅₆₇₈₉₊₋₍₎ₙᵢ"
_PLAIN_SCRIPTS = str.maketrans(_SUPERSCRIPTS + _SUBSCRIPTS, 2 * "0123456789+-()ni")
_SCRIPT_FRACTION = re.compile("([⁰¹²³⁴⁵⁶⁷⁸⁹]+)[⁄∕/]([₀₁₂₃₄₅₆₇₈₉]+)")
_RAISED, _LOWERED = re.compile(f"[{_SUPERSCRIPTS}]+"), re.compile(f"[{_SUBSCRIPTS}]+")
FRACTIONS = {
    ord(sign): "\\frac{{{}}}{{{}}}".format(*unicodedata.normalize("NFKC", sign).split("\u2044"))
    for sign in "¼½¾⅐⅑⅒⅓⅔⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞"
}
"""Character -> its LaTeX, for `str.translate`."""
_NUMBER_SETS = {ord(sign): f"\\mathbb{{{letter}}} " for sign, letter in zip("ℝℤℕℚℂ", "RZNQC", strict=True)}
_GREEK = {
    letter: (name.lower() if " SMALL " in unicodedata.name(letter) else name.capitalize())
    for letter in "αβγδεζηθικλμνξπρστυφχψωΓΔΘΛΞΠΣΦΨΩ"
    for name in [unicodedata.name(letter).split()[-1].replace("LAMDA", "LAMBDA")]
}
_COMMANDS = {
    "∞": "infty", "∅": "emptyset", "⌀": "emptyset", "×": "times", "⨯": "times", "·": "cdot", "⋅": "cdot", "∙": "cdot",
    "•": "cdot", "÷": "div", "±": "pm", "∓": "mp", "≤": "le", "⩽": "le", "≦": "le", "≥": "ge", "⩾": "ge", "≧": "ge",
    "≠": "ne", "≈": "approx", "∈": "in", "∉": "notin", "∪": "cup", "∩": "cap", "∖": "setminus", "⊂": "subset",
    "⟨": "langle", "〈": "langle", "⟩": "rangle", "〉": "rangle", "∠": "angle", "△": "triangle", "∨": "lor",
    "∧": "land", **_GREEK,
}  # fmt: skip
_CHARACTERS = {
    **{ord(sign): f"\\{name} " for sign, name in _COMMANDS.items()},
    **dict.fromkeys(map(ord, "−–"), "-"), **dict.fromkeys(map(ord, "′’"), "'"), **dict.fromkeys(map(ord, "⁄∕"), "/"),
    **dict.fromkeys(map(ord, "\u200b\u200c\u200d\u2060\ufeff"), None),
    ord("∶"): ":", ord("。"): ".", ord("、"): ",", ord("°"): r"^\circ ",
}  # fmt: skip
_ROOTS = {"√": "\\sqrt", "∛": "\\sqrt[3]", "∜": "\\sqrt[4]"}
_ROOT = re.compile(
    r"([√∛∜]) ?(?:\(([^()√∛∜]*)\)|\{([^{}√∛∜]*)\}|([0-9]+(?:\.[0-9]+)?|[a-zA-Z]|\\pi|\\frac\{[0-9]+\}\{[0-9]+\}))"
)
_NESTED_ROOTS = 3


def _ungrouped(found: re.Match[str]) -> str:
    return found[0].replace("'", "").replace(".", "")


def _mixed(found: re.Match[str]) -> str:
    r"""2 1/2 as 2\frac{1}{2}. Other texts stay: 4 10/3 is no mixed number, and 1 000/3 may be a thousand thirds."""
    whole, above, below = found.groups()
    proper = len(above) <= len(below) <= 3 and (len(above) < 3 or len(whole) > 3) and int(above) < int(below)
    return f"{whole}\\frac{{{above}}}{{{below}}}" if proper else found[0]


def _radians(found: re.Match[str]) -> str:
    function, *degrees = found.groups()
    return f"{function}(\\frac{{{next(filter(None, degrees))}\\pi}}{{180}})"


_TRIGONOMETRIC = r"(?:sin|cos|tan|cot|sec|csc)"
_FUNCTION = rf"(?:{_TRIGONOMETRIC}|arc(?:sin|cos|tan)|ln|log|exp)"
_SQUARED, _DEGREES = r"(?: ?\^ ?(?:[0-9]|\{[0-9]\}))?", r"([0-9]+(?:\.[0-9]+)?) ?\^\\circ"
_RULES = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        # spacing, size and style
        (r"\\!|\\left(?![a-zA-Z])|\\right(?![a-zA-Z])", ""),
        (r"\\[,;: ]|\\q?quad(?![a-zA-Z])|~", " "),
        (r"\{,\}", ","),
        (r"\\[dtc]frac(?![a-zA-Z])", r"\\frac"),
        (r"\\[dt]?binom ?(?:\{(\w+)\}|(\w)) ?(?:\{(\w+)\}|(\w))", r"\\binom{\1\2}{\3\4}"),
        # names of the same thing
        (r"\\degree(?![a-zA-Z])|\^ ?(?:\{ ?\\circ ?\}|\\circ(?![a-zA-Z]))", r"^\\circ"),
        (r"\\varnothing(?![a-zA-Z])", r"\\emptyset"),
        (r"\\(?:lor|vee)(?![a-zA-Z])", r"\\text{ or }"),
        (r"(?<![a-zA-Z\\])(?:infinity|inf)(?![a-zA-Z])", r"\\infty"),
        (r"(?<![a-zA-Z\\])pi(?![a-zA-Z])", r"\\pi"),
        (r"\\(?:text|mathrm) ?\{ ?(\\infty|\\pi) ?\}", r"\1"),
        (r"\\langle(?![a-zA-Z]) ?", "("),
        (r" ?\\rangle(?![a-zA-Z])", ")"),
        (r"([\[(][^][(){},;]*);([^][(){},;]*[\])])", r"\1,\2"),
        # functions with parentheses, or of degrees
        (r"\\?(?<![a-zA-Z])sqrt ?\(([^()]*)\)", r"\\sqrt{\1}"),
        (rf"(?<![a-zA-Z\\])({_FUNCTION})(?= ?[(_])", r"\\\1"),
        (rf"(\\{_TRIGONOMETRIC}{_SQUARED}) ?(?:{_DEGREES}|\( ?{_DEGREES} ?\)|\{{ ?{_DEGREES} ?\}})", _radians),
        (r"(?<=.)\\(?:text|mathrm) ?\{([ei])\}|\\(?:text|mathrm) ?\{([ei])\}(?=.)", r"\1\2"),
        # numbers: 1\text{e}5, 1'000'000, 1.000.000, 2 1/2
        (r"(?<=[0-9.]) ?\\(?:text|mathrm) ?\{ ?([eE]) ?\} ?(?=[-+0-9])", r"\1"),
        (r"(?<![0-9.,'])[0-9]{1,3}(?:'[0-9]{3})+(?![0-9'])", _ungrouped),
        (r"(?<![0-9.,])[0-9]{1,3}(?:\.[0-9]{3}){2,}(?![0-9.,])", _ungrouped),
        (r"(?<![\w.^/] )(?<![\w.,^/])([0-9]+) ([0-9]+) ?/ ?([0-9]+)(?![\w^/]|[.,][0-9]| ?[/^0-9])", _mixed),
    )
]
_WHOLE_ANSWER = re.compile(r"\\?\{ ?\\?\}|\\(?:text|textbf|mathrm|mathbf) ?\{([^{}\\a-zA-Z]+)\}")
_ENCLOSING = (("\\(", "\\)"), ("\\[", "\\]"), ("$$", "$$"), ("$", "$"), ("**", "**"), ("`", "`"))


@functools.lru_cache(maxsize=1 << 12)
def cleaned(answer: str) -> str:
    r"""The answer in plain LaTeX, without notation that has no meaning: enclosing dollars, \left, a final full stop.

    Examples: √2 and sqrt(2) are \sqrt{2}; x² is x^{2}; ½ is \frac{1}{2}; 2 1/2 is 2\frac{1}{2}; ∞ is \infty. An answer
    of more than `LONGEST` characters, before or after, is returned as it is.
    """
    if len(answer) > LONGEST or (answer.isascii() and answer.isdigit()):
        return answer
    text = answer if answer.isascii() else _without_unicode(answer)
    if len(text) > LONGEST:  # one character can stand for eighteen
        return answer
    text = " ".join(text.split())
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    text = _unwrapped(text)
    found = _WHOLE_ANSWER.fullmatch(text)
    return text if found is None else found[1] or "\\emptyset"


def _without_unicode(text: str) -> str:
    text = _SCRIPT_FRACTION.sub(lambda pair: f"\\frac{{{pair[1]}}}{{{pair[2]}}}".translate(_PLAIN_SCRIPTS), text)
    text = _RAISED.sub(lambda run: f"^{{{run[0].translate(_PLAIN_SCRIPTS)}}}", text)
    text = _LOWERED.sub(lambda run: f"_{{{run[0].translate(_PLAIN_SCRIPTS)}}}", text)
    text = text.translate(FRACTIONS | _NUMBER_SETS)
    text = unicodedata.normalize("NFKC", text).translate(_CHARACTERS)
    for _ in range(_NESTED_ROOTS):
        text = _ROOT.sub(lambda root: f"{_ROOTS[root[1]]}{{{root[2] or root[3] or root[4] or ''}}}", text)
    return text


def _unwrapped(text: str) -> str:
    """Without enclosing marks and final punctuation. Each kind of mark encloses at most once."""
    for _ in range(len(_ENCLOSING) + 1):
        before, text = text, re.sub(r"(?<=[^\s.])\.$", "", text.strip().rstrip(",; "))
        for opening, closing in _ENCLOSING:
            inner = text[len(opening) : -len(closing)]
            if len(text) > len(opening) + len(closing) and text.startswith(opening) and text.endswith(closing):
                text = inner if opening not in inner and not inner.endswith("\\") else text
        if text == before:
            break
    return text.strip()
