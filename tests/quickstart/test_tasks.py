"""The word tasks of the quickstart."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from viprl.errors import InputError
from viprl.quickstart import tasks


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("reverse", "edabc"),
        ("sort", "abcde"),
        ("descending", "edcba"),
        ("first", "c"),
        ("last", "e"),
        ("max", "e"),
        ("min", "a"),
        ("length", "5"),
        ("copy", "cbade"),
        ("next", "dcbef"),
        ("swap", "ebadc"),
        ("double", "ccbbaaddee"),
    ],
)
def test_right_answers(kind: str, expected: str):
    assert tasks.KINDS[kind].answer("cbade") == expected


def test_next_letter_wraps_around():
    assert tasks.KINDS["next"].answer("a" + tasks.LETTERS[-1]) == "ba"


def test_problems_are_distinct_cover_all_cells_and_follow_the_generator():
    problems = tasks.sample_problems(470, np.random.default_rng(3))
    assert len({p.prompt for p in problems}) == len({p.id for p in problems}) == 470
    sizes = Counter((p.kind, p.length) for p in problems)
    assert set(sizes) == set(tasks.cells()) and len(sizes) == 47 and set(sizes.values()) == {10}
    assert problems == tasks.sample_problems(470, np.random.default_rng(3))
    assert problems != tasks.sample_problems(470, np.random.default_rng(4))
    for p in problems:
        words, letters = p.prompt.removesuffix(" =").split(" : ")
        assert words in tasks.KINDS[p.kind].wordings and len(letters.split()) == p.length
        assert "".join(p.solution.split()) == tasks.KINDS[p.kind].answer(letters.replace(" ", ""))


def test_the_systematic_mistake_is_always_wrong():
    for p in tasks.sample_problems(400, np.random.default_rng(0)):
        letters = p.prompt.split(" : ")[1].removesuffix(" =").replace(" ", "")
        assert tasks.KINDS[p.kind].mistake(letters) != p.solution.replace(" ", "")


def test_kinds_can_be_chosen():
    assert {p.kind for p in tasks.sample_problems(20, np.random.default_rng(0), ["copy", "max"])} == {"copy", "max"}


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"n": 4, "kinds": ["spin"]}, "'spin'"),
        ({"n": 0}, "n is 0"),
    ],
)
def test_problems_that_do_not_exist(options, part):
    with pytest.raises(InputError, match=part):
        tasks.sample_problems(rng=np.random.default_rng(0), **options)


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
        task, given = tasks.KINDS[kind], answer.replace(" ", "")
        assert given in (task.answer(word), task.mistake(word))
        right[kind, len(word)].append(given == task.answer(word))
    for (kind, length), seen in right.items():
        share = tasks.KINDS[kind].right_share(length)
        assert abs(np.mean(seen) - share) <= 4 * np.sqrt(share * (1 - share) / len(seen)) + 1e-12
