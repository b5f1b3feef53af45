"""Data sets with a short name, and what is known of their columns."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class NamedSet:
    """Where a data set is and how its rows are read."""

    hub: str
    """Repository on the Hugging Face Hub."""
    split: str
    rows: int
    """Rows of the split; for display only."""
    prompt_column: str
    solution_column: str
    summary: str
    subset: str | None = None
    answer_after: str | None = None
    """The answer is the text after this mark."""
    duplicates: str = "keep"
    instruction: str = "boxed"
    chat: bool = True


# DAPO's file wraps every question in an instruction. It is removed where another one is used.
DAPO_WRAPPER = (
    "Solve the following math problem step by step. The last line of your response should be of the form Answer: "
    "$Answer (without quotes) where $Answer is the answer to the problem.\n\n",
    '\n\nRemember to put your answer on its own line after "Answer:".',
)

NAMED: dict[str, NamedSet] = {
    "dapo-math-17k": NamedSet(
        "BytedTsinghua-SIA/DAPO-Math-17k", "train", 1_791_700, "prompt", "reward_model.ground_truth",
        "competition problems with integer answers; the file on the Hub has every row 100 times",
        duplicates="drop",
    ),
    "aime24": NamedSet("HuggingFaceH4/aime_2024", "train", 30, "problem", "answer", "AIME I and II of 2024"),
    "aime25": NamedSet("math-ai/aime25", "test", 30, "problem", "answer", "AIME I and II of 2025"),
    "math500": NamedSet("HuggingFaceH4/MATH-500", "test", 500, "problem", "answer", "500 test problems of MATH"),
    "gsm8k": NamedSet(
        "openai/gsm8k", "train", 7_473, "question", "answer", "grade-school word problems; split: test has 1,319",
        subset="main", answer_after="####",
    ),
}  # fmt: skip
