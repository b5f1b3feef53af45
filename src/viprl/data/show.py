"""`viprl data show`: a summary of a data set in the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape

from viprl.data.gym import is_gym
from viprl.data.lengths import check_template, context_of, load_model_config, load_tokenizer, rendered, token_lengths
from viprl.data.loading import LEAVE_OUT, DataSource, Loaded, bad_rows, load
from viprl.data.named import NAMED
from viprl.data.tables import SUFFIXES
from viprl.prompts import text
from viprl.utils.words import visible

SAMPLE = 1_000  # rows of an endless data set that are measured
QUANTILES = (0.05, 0.5, 0.95, 1.0)


def show_names(console: Console) -> None:
    """Print the named sets, two lines each."""
    for name, known in NAMED.items():
        answer = known.solution_column + (f" after {known.answer_after}" if known.answer_after else "")
        where = f"{known.hub}{f', {known.subset}' if known.subset else ''}, split {known.split}, {known.rows:,} rows"
        console.print(f"[bold]{name:<15}[/bold]{escape(known.summary)}", soft_wrap=True, highlight=False)
        columns = f"prompt: {known.prompt_column} · answer: {answer}"
        console.print(f"{'':<15}{escape(where)} · {escape(columns)}", soft_wrap=True, highlight=False)
    console.print(
        f"{'others':<15}reasoning-gym:TASK, a file ({', '.join(SUFFIXES)}), a folder, or a Hub name", soft_wrap=True
    )


def show_data(
    source: DataSource,
    console: Console,
    model: str | None = None,
    completion: int = 0,
    template_options: Mapping[str, Any] | None = None,
) -> None:
    """Print columns, rows, duplicates, bad rows, lengths and two examples of a data set.

    Bad rows are listed here and never an error; `source.skip_bad_rows` decides what training would do with them.

    Args:
        source: the data set.
        console: where to print.
        model: folder or Hub name: lengths in its tokens, examples through its chat template.
        completion: tokens that a completion may take of the model's context.
        template_options: options of the chat template, as in `chat_template_kwargs` of a configuration.

    Raises what `viprl.data.load` raises; InputError if the model's tokenizer or configuration cannot be loaded.
    """
    loaded = load(replace(source, skip_bad_rows=True))
    n = min(len(loaded.dataset), SAMPLE) if is_gym(source.name) else len(loaded.dataset)
    rows = loaded.dataset[:n]
    prompts, solutions = rows["prompt"], rows["solution"]
    for name, words in _facts(loaded).items():
        _line(console, name, words)
    _lengths(console, "characters", np.array([len(text(prompt)) for prompt in prompts]))
    tokenizer, over = None, 0
    if model is not None:
        tokenizer = load_tokenizer(model)
        check_template(prompts, tokenizer, model)
        tokens = token_lengths(prompts, tokenizer, template_options)
        _lengths(console, "tokens", tokens)
        context = context_of(load_model_config(model))
        if context:
            over = int((tokens + completion > context).sum())
            room = f" with completions of {completion:,}" if completion else ""
            _line(console, "context", f"{context:,} tokens; {over:,} prompts exceed it{room}")
    if loaded.findings is not None:
        _line(console, "to train on", _usable(loaded, source.skip_bad_rows, over))
        for remark in loaded.findings.remarks:
            _line(console, "note", remark)
    for at in range(min(2, n)):
        shown = rendered(prompts[at], tokenizer, template_options) if tokenizer else _plain(prompts[at])
        console.rule(f"row {at + 1}{' as the model sees it' if tokenizer else ''}", align="left", style="dim")
        console.print(escape(visible(shown)), soft_wrap=True, highlight=False)
        console.print(f"[bold]answer[/bold] {escape(visible(str(solutions[at])))}", soft_wrap=True, highlight=False)


def _facts(loaded: Loaded) -> dict[str, str]:
    source, found, layout = loaded.source, loaded.findings, loaded.layout
    name = source.name
    if name in NAMED:
        name += f" ({NAMED[name].hub}, {source.subset + ', ' if source.subset else ''}split {source.split})"
    answer = layout.solution + (f", the text after {source.answer_after}" if source.answer_after else "")
    prompt = loaded.dataset[0]["prompt"]
    kind = "text" if isinstance(prompt, str) else f"chat ({', '.join(message['role'] for message in prompt)})"
    facts = {
        "source": name,
        "columns": f"prompt: {layout.prompt} · answer: {answer} · layout: {layout.name}",
        "prompt is": f"{kind}; instruction: {source.instruction or '-'}",
    }
    if found is None:
        return facts | {"rows": f"endless; {len(loaded.dataset):,} for each seed, generated when they are read"}
    facts |= {"rows": f"{found.rows:,}", "prompts": f"{found.prompts:,}"}
    facts["duplicates"] = f"{found.duplicates:,} rows repeat the prompt of another ({found.repeated:,} prompts)"
    if found.conflicts:
        some = "; ".join(
            f"row {c.row + 1}: {', '.join(f'{a} ({n})' for a, n in c.answers.items())}" for c in found.conflicts[:8]
        )
        facts["conflicts"] = f"{len(found.conflicts):,} prompts with several answers (number of rows): {some}"
    return facts | {"bad rows": bad_rows(found.bad) if found.bad else "none"}


def _usable(loaded: Loaded, skip: bool, over: int) -> str:
    """What training would do with a finite data set of whose good rows `over` are too long."""
    bad = len(loaded.findings.bad) if loaded.findings is not None else 0
    rows = f"{len(loaded.dataset) - over:,} rows (duplicates: {loaded.source.duplicates or 'keep'})"
    what = " and ".join(f"{n:,} {kind} row{'s' * (n > 1)}" for n, kind in ((bad, "bad"), (over, "overlong")) if n)
    if not what:
        return rows
    if len(loaded.dataset) == over:
        return f"none: all rows are bad or overlong ({what})"
    if skip:
        return f"{rows}; {what} left out"
    return f"none: training refuses {what}; fix them, or {LEAVE_OUT}; then {rows}"


def _line(console: Console, name: str, words: str) -> None:
    console.print(f"[bold]{name:<12}[/bold] {escape(visible(words))}", soft_wrap=True)


def _lengths(console: Console, unit: str, lengths: np.ndarray) -> None:
    values = np.quantile(lengths, QUANTILES)
    words = (f"{name} {value:,.0f}" for name, value in zip(("5 %", "median", "95 %", "longest"), values, strict=True))
    _line(console, unit, " · ".join(words))


def _plain(prompt: str | Sequence[dict]) -> str:
    if isinstance(prompt, str):
        return prompt
    return "\n".join(f"[{message['role']}] {_content(message)}" for message in prompt)


def _content(message: Mapping[str, Any]) -> str:
    """Its texts, and the kinds of other parts and calls."""
    parts = message.get("content") or []
    words = [parts] if isinstance(parts, str) else [part.get("text", f"({part['type']})") for part in parts]
    return " ".join([*words, *(f"(call: {call.get('function', call)})" for call in message.get("tool_calls", []))])
