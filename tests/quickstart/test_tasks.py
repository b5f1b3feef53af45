"""The word tasks of the quickstart."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from viprl.errors import InputError
from viprl.quickstart import tasks


def test_right_answers():
    kinds = "reverse sort descending first last max min length copy next swap double"
    right = "edabc abcde edcba c e e a 5 cbade dcbef ebadc ccbbaaddee"
    assert list(tasks.KINDS) == kinds.split()
    assert [tasks.answers(kind, "cbade")[0] for kind in kinds.split()] == right.split()
    assert tasks.answers("next", "a" + tasks.LETTERS[-1])[0] == "ba"  # the first letter follows the last


def test_problems_have_distinct_prompts_in_both_wordings_and_their_right_answers():
    problems = [p for part in tasks.late_rl_pool(np.random.default_rng(3), 400, 100) for p in part]
    assert len({p.prompt for p in problems}) == len({p.id for p in problems}) == 500
    for p in problems:
        words, letters = p.prompt.removesuffix(" =").split(" : ")
        right, mistake = tasks.answers(p.kind, letters.replace(" ", ""))
        assert words in tasks.KINDS[p.kind].wordings and len(letters.split()) == p.length
        assert "".join(p.solution.split()) == right != mistake
    assert {p.prompt.split(" : ")[0] for p in problems} == {
        w for name, kind in tasks.KINDS.items() if name in {p.kind for p in problems} for w in kind.wordings
    }


def test_problems_follow_the_generator():
    first, again, other = (tasks.late_rl_pool(np.random.default_rng(seed), 40, 10) for seed in (3, 3, 4))
    assert first == again and first != other


def test_more_prompts_than_a_cell_has():
    with pytest.raises(InputError, match="1441"):
        tasks._draw_distinct([("first", 3)], 1441, np.random.default_rng(0), set())


def test_late_rl_pool_has_its_shares_and_a_disjoint_held_out_set():
    train, held_out = tasks.late_rl_pool(np.random.default_rng(0))
    for problems, size in ((train, 1024), (held_out, 256)):
        groups = Counter(tasks.group_of(p.kind, p.length) for p in problems)
        assert groups.total() == size
        for group, share in {"live": 0.25, "solved": 0.35, "out_of_reach": 0.4}.items():
            assert abs(groups[group] - share * size) < 1
    assert len({p.prompt for p in train + held_out}) == 1280


def test_each_cell_of_the_corpus_has_its_share_of_right_answers():
    right: dict[tuple[str, int], list[bool]] = {cell: [] for cell in tasks.cells()}
    wordings = {wording: kind for kind, task in tasks.KINDS.items() for wording in task.wordings}
    for prompt, answer in tasks.supervised_corpus(30_000, np.random.default_rng(0)):
        words, letters = prompt.removesuffix(" =").split(" : ")
        kind, word = wordings[words], letters.replace(" ", "")
        given = answer.replace(" ", "")
        assert given in tasks.answers(kind, word)
        right[kind, len(word)].append(given == tasks.answers(kind, word)[0])
    for (kind, length), seen in right.items():
        share = tasks.KINDS[kind].right_share(length)
        assert abs(np.mean(seen) - share) <= 4 * np.sqrt(share * (1 - share) / len(seen)) + 1e-12
