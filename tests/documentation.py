"""The pages of the documentation and their blocks of code."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
PAGES = sorted(
    str(path.relative_to(ROOT))
    for path in (
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        ROOT / "CHANGELOG.md",
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "recipes").rglob("*.md"),
        *(ROOT / "examples").rglob("*.md"),
    )
)


@dataclass(frozen=True)
class Block:
    """A block of code."""

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def read(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str, *languages: str) -> list[Block]:
    """The blocks of a page, in order; all of them without `languages`."""
    text = read(page)
    found = [Block(page, text.count("\n", 0, m.start()) + 2, m[1], m[2]) for m in FENCE.finditer(text)]
    return [block for block in found if block.language in languages or not languages]


def all_blocks(*languages: str) -> list[Block]:
    return [block for page in PAGES for block in blocks(page, *languages)]


def prose(page: str) -> str:
    """A page without its blocks of code, which keep their lines."""
    return FENCE.sub(lambda m: "\n" * m[0].count("\n"), read(page))


def replaced(text: str, changes: tuple[tuple[str, str], ...]) -> str:
    """`text` with each change made once."""
    for old, new in changes:
        assert text.count(old) == 1, f"{old!r} occurs {text.count(old)} times"
        text = text.replace(old, new)
    return text


def run(block: Block, namespace: dict[str, Any], changes: tuple[tuple[str, str], ...] = ()) -> Any:
    """Run a block of Python in `namespace`. Returns the value of its last line if that is an expression."""
    tree = ast.parse(replaced(block.text, changes))
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, str(block), "exec"), namespace)
    return None if last is None else eval(compile(ast.Expression(last.value), str(block), "eval"), namespace)
