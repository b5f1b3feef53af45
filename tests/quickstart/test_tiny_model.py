"""The quickstart's word tasks, tokenizer, tiny model and sampler."""

from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from viprl.quickstart import model as quickstart  # noqa: E402
from viprl.quickstart import tasks  # noqa: E402


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Many threads make a model this small slower, not faster."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def tokenizer():  # type: ignore[no-untyped-def]
    return quickstart.build_tokenizer()


@pytest.fixture(scope="module")
def model():  # type: ignore[no-untyped-def]
    return quickstart.build_model(0).eval()


def generator(seed: int = 0):  # type: ignore[no-untyped-def]
    return torch.Generator().manual_seed(seed)


# ---- tasks ----------------------------------------------------------------------------------------------------------


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
def test_right_answers(kind: str, expected: str) -> None:
    assert tasks.KINDS[kind].answer("cbade") == expected


def test_next_letter_wraps_around() -> None:
    assert tasks.KINDS["next"].answer("a" + tasks.LETTERS[-1]) == "ba"


def test_problems_are_distinct_cover_all_cells_and_follow_the_generator() -> None:
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


def test_the_systematic_mistake_is_always_wrong() -> None:
    for p in tasks.sample_problems(400, np.random.default_rng(0)):
        letters = p.prompt.split(" : ")[1].removesuffix(" =").replace(" ", "")
        assert tasks.KINDS[p.kind].mistake(letters) != p.solution.replace(" ", "")


def test_kinds_can_be_chosen_and_unknown_ones_are_refused() -> None:
    assert {p.kind for p in tasks.sample_problems(20, np.random.default_rng(0), ["copy", "max"])} == {"copy", "max"}
    with pytest.raises(ValueError, match="spin"):
        tasks.sample_problems(4, np.random.default_rng(0), ["spin"])


def test_more_prompts_than_exist_is_an_error() -> None:
    with pytest.raises(ValueError, match="fewer prompts"):
        tasks._draw_distinct([("first", 3)], 10_000, np.random.default_rng(0), set())


def test_late_rl_pool_has_its_shares_and_a_disjoint_held_out_set() -> None:
    train, held_out = tasks.late_rl_pool(np.random.default_rng(0))
    for problems, size in ((train, 1024), (held_out, 256)):
        groups = Counter(tasks.group_of(p.kind, p.length) for p in problems)
        assert groups.total() == size
        for group, share in {"live": 0.25, "solved": 0.35, "out_of_reach": 0.4}.items():
            assert abs(groups[group] - share * size) < 1
    assert len({p.prompt for p in train + held_out}) == 1280


def test_late_rl_pool_refuses_shares_that_do_not_sum_to_one() -> None:
    with pytest.raises(ValueError, match="sum to 1"):
        tasks.late_rl_pool(np.random.default_rng(0), shares={"live": 0.5, "solved": 0.6})


def test_corpus_shows_each_cell_its_share_of_right_answers() -> None:
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


def test_tokenizer_knows_every_word_and_decodes_to_the_solution(tokenizer) -> None:  # type: ignore[no-untyped-def]
    assert 60 <= len(tokenizer) <= 90 and tokenizer.padding_side == "left"
    for p in tasks.sample_problems(300, np.random.default_rng(0)):
        prompt, answer = tokenizer(p.prompt)["input_ids"], tokenizer(p.solution)["input_ids"]
        assert tokenizer.unk_token_id not in prompt + answer
        # Prompt and answer, tokenized apart, are what the whole text gives: answers follow prompts directly.
        assert tokenizer(f"{p.prompt} {p.solution}")["input_ids"] == prompt + answer
        assert tokenizer.decode([*answer, tokenizer.eos_token_id], skip_special_tokens=True).strip() == p.solution
        assert len(answer) + 1 <= 12
    assert set(tokenizer("copy the letters : a b c =")) == {"input_ids", "attention_mask"}


def test_conversations_read_like_plain_prompts(tokenizer) -> None:  # type: ignore[no-untyped-def]
    prompt = "copy the letters : a b c ="
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
    )
    assert text == prompt


def test_model_size_and_seed() -> None:
    state = torch.random.get_rng_state()
    first, again, other = (quickstart.build_model(seed) for seed in (0, 0, 1))
    assert torch.equal(state, torch.random.get_rng_state())
    assert 430_000 < sum(p.numel() for p in first.parameters()) < 450_000
    assert first.lm_head.weight is first.model.embed_tokens.weight
    weights = [m.model.layers[1].mlp.up_proj.weight for m in (first, again, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_labels_cover_the_answer_and_eos_only(tokenizer) -> None:  # type: ignore[no-untyped-def]
    batch = quickstart._answer_batch(
        [("copy the letters : a b c =", "a b c"), ("how many letters : a b c =", "3")], tokenizer
    )
    assert batch["input_ids"].shape == batch["labels"].shape
    answers = [row[row != -100] for row in batch["labels"]]
    assert tokenizer.batch_decode(answers) == ["a b c <eos>", "3 <eos>"]


def test_pretraining_lowers_the_loss_and_the_folder_loads_anywhere(tokenizer, tmp_path) -> None:  # type: ignore[no-untyped-def]
    losses: list[float] = []
    trained = quickstart.build_model(0)
    quickstart.pretrain(
        trained, tokenizer, seed=0, steps=8, batch_size=32, progress=lambda step, loss: losses.append(loss)
    )
    assert len(losses) == 8 and losses[-1] < losses[0] - 0.5 and not trained.training
    trained.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    reader = transformers.AutoTokenizer.from_pretrained(tmp_path)
    texts = ["copy the letters : a b c =", "double the letters : a b c d ="]
    batch, expected = (
        reader(texts, return_tensors="pt", padding=True),
        tokenizer(texts, return_tensors="pt", padding=True),
    )
    assert batch.keys() == expected.keys() and torch.equal(batch["input_ids"], expected["input_ids"])
    assert reader.padding_side == "left" and reader.eos_token_id == tokenizer.eos_token_id == loaded.config.eos_token_id
    assert torch.equal(loaded(**batch).logits, trained(**batch).logits)


# ---- sampler --------------------------------------------------------------------------------------------------------

PROMPTS = ["copy the letters : a b c =", "shift by one letter : a b c d e f =", "how many letters : c b a ="]


def test_nearly_cold_samples_equal_greedy_decoding(model, tokenizer) -> None:  # type: ignore[no-untyped-def]
    samples = quickstart.sample_completions(model, tokenizer, PROMPTS, 2, generator(), temperature=1e-4)
    for prompt, rollouts in zip(PROMPTS, samples, strict=True):
        ids = tokenizer(prompt, return_tensors="pt")
        greedy = model.generate(**ids, max_new_tokens=12, do_sample=False)[0, ids["input_ids"].shape[1] :].tolist()
        assert rollouts == [greedy, greedy]


def test_samples_follow_the_policy(model, tokenizer) -> None:  # type: ignore[no-untyped-def]
    """First tokens by frequency, second tokens by their conditional frequency, on a short and a padded prompt."""
    n, temperature = 20_000, 0.5
    samples = quickstart.sample_completions(
        model, tokenizer, PROMPTS[:2], n, generator(), max_new_tokens=2, temperature=temperature, max_rows=8000
    )
    for prompt, rollouts in zip(PROMPTS, samples, strict=False):
        context = tokenizer(prompt)["input_ids"]
        top = Counter(r[0] for r in rollouts if r[0] != tokenizer.eos_token_id).most_common(1)[0][0]
        seconds = [r[1] for r in rollouts if r[0] == top]
        for prefix, seen in ((context, [r[0] for r in rollouts]), ([*context, top], seconds)):
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([prefix])).logits[0, -1]
            q = (logits / temperature).softmax(-1).numpy()
            frequency = np.bincount(seen, minlength=q.size) / len(seen)
            assert np.all(np.abs(frequency - q) < 5 * np.sqrt(q * (1 - q) / len(seen)) + 1e-3)


def test_counts_per_prompt_chunks_and_endings(model, tokenizer) -> None:  # type: ignore[no-untyped-def]
    samples = quickstart.sample_completions(model, tokenizer, PROMPTS, [3, 0, 5], generator(), max_rows=4)
    assert [len(rollouts) for rollouts in samples] == [3, 0, 5]
    for rollout in samples[0] + samples[2]:
        assert 1 <= len(rollout) <= 12 and tokenizer.eos_token_id not in rollout[:-1]
        assert len(rollout) == 12 or rollout[-1] == tokenizer.eos_token_id
    assert samples == quickstart.sample_completions(model, tokenizer, PROMPTS, [3, 0, 5], generator(), max_rows=4)


def test_no_prompts_and_bad_arguments(model, tokenizer) -> None:  # type: ignore[no-untyped-def]
    assert quickstart.sample_completions(model, tokenizer, [], 4, generator()) == []
    with pytest.raises(ValueError, match="at least 0, got -1"):
        quickstart.sample_completions(model, tokenizer, PROMPTS, [1, -1, 2], generator())
    with pytest.raises(ValueError, match="temperature above 0"):
        quickstart.sample_completions(model, tokenizer, PROMPTS, 1, generator(), temperature=0.0)
