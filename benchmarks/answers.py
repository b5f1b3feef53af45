"""The cost of grading the answers of a step, 4,096 completions (Q = 512, C = 8Q), by the number of processes.

usage: python benchmarks/answers.py [--workers 1,2,4] [--references FILE.jsonl[.gz] ...] [--repeats 3]

Each reference has eight answers at the end of a text of 4,000 characters: the reference itself (45 %), another form of
it (15 %), the answer of another problem (33 %), or none (7 %). The built-in references are whole numbers, as in DAPO
and AIME, and mathematics: half whole numbers; half fractions, roots, polynomials, points, intervals, words.
--references takes the `answer` of each row of a file instead. Wall-clock times do not include the start of the
processes; processor times do. Verdicts are not cached between repeats. Then the degenerate completions of a model that
repeats itself, beside as many ordinary ones. Last, an attack: answers whose comparison never ends.
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path

import numpy as np

from viprl.rewards.grading.answers import score
from viprl.rewards.grading.verifier import Verifier
from viprl.utils.json_lines import read_json_lines

PROMPTS, GROUP = 512, 8
TEXT = "We look at both sides and simplify, which leaves fewer terms than before. " * 55


def whole_numbers(rng: np.random.Generator) -> list[str]:
    return [str(x) for x in rng.integers(0, 1000, PROMPTS)]


def mathematics(rng: np.random.Generator) -> list[str]:
    forms = (
        r"\frac{{{a}}}{{{b}}}", r"{a}\sqrt{{{b}}}", "x^2+{a}x+{b}", "({a},{b})", r"\frac{{{a}\pi}}{{{b}}}", "[{a},{c}]",
        r"\text{{{w}}}", "{a},{c}", "{a}+{b}i", r"\frac{{\sqrt{{{b}}}}}{{{a}}}",
    )  # fmt: skip
    words = ("east", "Monday", "even", "Anna")
    answers = []
    for _ in range(PROMPTS):
        a, b = (int(x) for x in rng.integers(2, 30, 2))
        form = str(rng.choice(forms)).format(a=a, b=b, c=a + b, w=rng.choice(words))
        answers.append(form if rng.random() < 0.5 else str(a * b))
    return answers


def from_file(path: str, rng: np.random.Generator) -> list[str]:
    answers = [str(row["answer"]) for _, row in read_json_lines(path)]
    return [answers[i] for i in rng.permutation(len(answers))[:PROMPTS]]


def other_form(answer: str, rng: np.random.Generator) -> str:
    """Another form of the same answer, if there is a simple one."""
    if answer.lstrip("-").isdigit():
        return str(rng.choice([f"{int(answer):,}", f"{answer}.0", f"x = {answer}", rf"{answer}\text{{ units}}"]))
    return answer.replace(r"\frac", r"\dfrac").replace("+", " + ").replace("(", r"\left(").replace(")", r"\right)")


def step(references: list[str], rng: np.random.Generator) -> tuple[list[str], list[str]]:
    completions, solutions = [], []
    for reference in references:
        for kind in rng.choice(4, GROUP, p=[0.45, 0.15, 0.33, 0.07]):
            answer = [reference, other_form(reference, rng), str(rng.choice(references)), None][kind]
            completions.append(TEXT + ("no answer" if answer is None else rf"The answer is \boxed{{{answer}}}."))
            solutions.append(reference)
    return completions, solutions


def loops(number: int) -> list[str]:
    """Completions of 10,000 characters that repeat a few, half of them in a closed box, no two the same."""
    units = (
        ";", ", ", "1, ", "{", "{}", "\\frac", "\\frac{1}{", "(", "()", "\\boxed{", "x^", "x^{", "9**", "9^", "9", " ",
        "1+", "-", "\\sqrt{", "√", "²", "\\text{a", "or 1 ", "x=", "1<", "$", "**", "\\", "\\left(", "\\sin(", "!",
        "1e5", "\n", "x_", "|", "[1,2]\\cup ", "so the answer is ", "1 1/2 ", "'000", "答案", "x+1=2, ",
    )  # fmt: skip
    texts = []
    for place in range(number):
        length = 9_000 if place % 4 else 1_900
        loop = (units[place % len(units)] * length)[:length]
        texts.append(f"\\boxed{{{place}+x{loop}" + ("}" if place % 2 else ""))
    return texts


def timed(completions: list[str], solutions: list[str], workers: int) -> tuple[float, float, float]:
    """Wall-clock seconds, processor seconds and the share of correct answers, with new processes."""
    verifier, spent = Verifier(workers), cpu()
    warm_up = [(rf"\boxed{{x+{i}}}", f"{i}+x+0") for i in range(4 * workers)]
    score([text for text, _ in warm_up], [right for _, right in warm_up], verifier=verifier)
    began = time.perf_counter()
    rewards = score(completions, solutions, verifier=verifier)
    seconds = time.perf_counter() - began
    verifier.close()
    return seconds, cpu() - spent, sum(reward or 0.0 for reward in rewards) / len(rewards)


def median_of(repeats: int, completions: list[str], solutions: list[str], workers: int) -> float:
    """Median wall-clock seconds."""
    return float(np.median([timed(completions, solutions, workers)[0] for _ in range(repeats)]))


def cpu() -> float:
    """Processor seconds of this process and of its finished child processes."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", default="1,2,4")
    parser.add_argument("--references", nargs="*", default=[])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--loops", type=int, default=512, help="degenerate completions; 0 to leave out")
    parser.add_argument("--attack", type=int, default=256, help="answers whose comparison never ends; 0 to leave out")
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    mixes = {Path(path).name: from_file(path, rng) for path in arguments.references}
    mixes = mixes or {"whole numbers": whole_numbers(rng), "mathematics": mathematics(rng)}
    for name, references in mixes.items():
        completions, solutions = step(references, np.random.default_rng(1))
        for workers in map(int, arguments.workers.split(",")):
            runs = [timed(completions, solutions, workers) for _ in range(arguments.repeats)]
            walls, cpus, rights = zip(*runs, strict=True)
            print(
                f"{name:<22} {workers} processes: {len(completions)} answers in {np.median(walls):6.2f} s "
                f"[{min(walls):.2f}, {max(walls):.2f}], processor {np.median(cpus):.1f} s; {rights[0]:.1%} correct",
                flush=True,
            )
        if arguments.loops:
            texts, rights = loops(arguments.loops), solutions[: arguments.loops]
            ordinary = median_of(arguments.repeats, completions[: arguments.loops], rights, workers)
            degenerate = median_of(arguments.repeats, texts, rights, workers)
            print(
                f"{name:<22} {workers} processes: {len(texts)} answers that repeat themselves in {degenerate:.2f} s, "
                f"as many ordinary ones in {ordinary:.2f} s",
                flush=True,
            )
    if arguments.attack:
        towers = [rf"\boxed{{9^{{9^{{9^{{{i}}}}}}}}}" for i in range(9, 9 + arguments.attack)]
        workers = int(arguments.workers.split(",")[-1])
        seconds, _, right = timed(towers, ["5x"] * len(towers), workers)
        print(
            f"attack, {workers} processes: {len(towers)} answers that never end in {seconds:.1f} s, {right:.0%} correct"
        )


if __name__ == "__main__":
    main()
