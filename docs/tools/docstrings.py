"""An extension of griffe, which reads the source and imports nothing: options and examples as `help()` shows them."""

from __future__ import annotations

import ast
import re
import textwrap

import griffe

EXAMPLE = re.compile(r"^Example:(.*)\n((?:    .*\n?|\n)+)", re.M)
SEVERAL = re.compile(r"^( +)(\w+(?:, \w+)+):( .*\n(?:\1 +.*\n)*)", re.M)
"""Arguments that share a line: 'min_rollouts, max_rollouts: ...'."""


class Docstrings(griffe.Extension):
    def __init__(self) -> None:
        self.options: dict[str, tuple[str, str]] = {}
        """Option of `viprl.VIP` -> type and help."""

    def on_attribute_instance(self, *, node, attr: griffe.Attribute, **_) -> None:
        """An option of `viprl.settings`, declared as `_option(default, type, help)`, has its default and its help."""
        call = getattr(node, "value", None)
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "_option":
            attr.value = attr.value.arguments[0]
            help_text = ast.literal_eval(call.args[2])
            attr.docstring = griffe.Docstring(help_text, parent=attr)
            if attr.parent.name == "Settings":
                self.options[attr.name] = (ast.unparse(call.args[1]), help_text)

    def on_package(self, *, pkg: griffe.Module, **_) -> None:
        rewrite(pkg, "\n".join(f"{name} ({kind}): {text}" for name, (kind, text) in self.options.items()))


def rewrite(owner: griffe.Object, options: str) -> None:
    """Rewrite the docstrings of `owner` and of everything in it."""
    if owner.docstring is not None:
        text = EXAMPLE.sub(
            lambda m: f"Example:{m[1]}\n\n```python\n{textwrap.dedent(m[2]).strip()}\n```\n\n", owner.docstring.value
        )
        prefix = ", with the prefix `vip_`" if ".trl." in owner.path else ""
        listed = options if owner.name == "VIP" else f"All options of `VIP` and `EngineSettings`{prefix}."
        text = re.sub(r"^( *)\{options\}$", lambda line: textwrap.indent(listed, line[1]), text, flags=re.M)
        text = SEVERAL.sub(lambda m: "".join(f"{m[1]}{name}:{m[3]}" for name in m[2].split(", ")), text + "\n")
        owner.docstring.value = text.replace("][", "]\\[")  # [Q][n] is a shape, not a link
    for member in owner.members.values():
        if not member.is_alias:
            rewrite(member, options)
