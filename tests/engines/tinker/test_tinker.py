"""The adapter for tinker-cookbook in its own synchronous loop; only the service that samples and trains is fake."""

import asyncio
import json
import pickle
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.metadata import version
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("tinker_cookbook", reason="tinker-cookbook is not installed; `make test-tinker` has it")

import chz
import tinker
import torch
from tinker_cookbook.checkpoint_utils import CheckpointManager
from tinker_cookbook.renderers.base import ParseTermination
from tinker_cookbook.rl import rollouts, train
from tinker_cookbook.rl.data_processing import compute_advantages
from tinker_cookbook.rl.problem_env import ProblemEnv, ProblemGroupBuilder
from tinker_cookbook.rl.rollout_limits import TerminationRewardPolicy
from tinker_cookbook.rl.rollout_strategy import RetryOnFailure
from tinker_cookbook.rl.types import (
    EnvGroupBuilder,
    RLDataset,
    RLDatasetBuilder,
    Trajectory,
    TrajectoryGroup,
    Transition,
)

from viprl import VIP
from viprl.advantages import group_advantages, rollout_weights
from viprl.engines.tinker import VIPDatasetBuilder, with_vip
from viprl.engines.tinker.dataset_builder import REFUSED
from viprl.engines.tinker.group_size import group_size, resized
from viprl.engines.tinker.planned_dataset import STATE_FOLDER
from viprl.engines.tinker.shaped_rewards import shaped_totals
from viprl.engines.tinker.tinker_api import CONTRACT
from viprl.errors import InputError
from viprl.metrics import UNSCORABLE
from viprl.settings import EngineSettings, options

Q, N = 6, 8
CHANCE = [0.02, 0.1, 0.3, 0.5, 0.95, 0.99] * 2
"""Success probability of each question; two batches."""


class Renderer:
    def get_stop_sequences(self):
        return []

    def build_generation_prompt(self, messages):
        return tinker.ModelInput.from_ints([100 + int(messages[-1]["content"])])

    def parse_response(self, action):
        return {"role": "assistant", "content": str(action[0])}, ParseTermination.STOP_SEQUENCE


class Question(ProblemEnv):
    def __init__(self, number):
        super().__init__(Renderer())
        self.number = number

    def get_question(self):
        return str(self.number)

    def check_answer(self, sample_str):
        return sample_str == "1"

    def check_format(self, sample_str):
        return True

    def get_reference_answer(self):
        return "1"


class Questions(RLDataset):
    def get_batch(self, index):
        return [ProblemGroupBuilder(partial(Question, index * Q + q), N) for q in range(Q)]

    def __len__(self):
        return len(CHANCE) // Q


@chz.chz
class QuestionsBuilder(RLDatasetBuilder):
    async def __call__(self):
        return Questions(), None


async def soon(value):
    return value


class Service:
    """Samples token 1 with the chance of the question, and keeps every datum that it trains on."""

    def __init__(self, seed=0):
        self.rng, self.steps = np.random.default_rng(seed), []

    async def sample(self, prompt, num_samples, sampling_params):
        p = CHANCE[prompt.to_ints()[0] - 100]
        token = int(self.rng.random() < p)
        logprob = float(np.log(p if token else 1 - p))
        sequence = SimpleNamespace(tokens=[token], logprobs=[logprob], stop_reason="stop", sequence_id=None)
        return SimpleNamespace(sequences=[sequence], prompt_cache_hit_tokens=0)

    def forward_backward(self, data, loss_fn, loss_fn_config):
        self.steps.append(data)
        outputs = [{"logprobs": datum.loss_fn_inputs["logprobs"]} for datum in data]
        return soon(SimpleNamespace(loss_fn_outputs=outputs))

    def optim_step(self, adam_params):
        return soon(SimpleNamespace(metrics={}))

    async def save_weights_and_get_sampling_client(self, record_stability_info=False):
        return self

    def create_sampling_client(self, path, record_stability_info=False):
        return SimpleNamespace(result=lambda: self)

    def save_state(self, name, ttl_seconds=None):
        return soon(SimpleNamespace(path=f"fake://state/{name}"))

    def save_weights_for_sampler(self, name, ttl_seconds=None):
        return soon(SimpleNamespace(path=f"fake://sampler/{name}"))


class Log:
    store = None

    def __init__(self):
        self.rows = []

    def log_metrics(self, metrics, step=None):
        self.rows.append(metrics)

    def log_summary(self, metrics):
        pass


def config_in(folder, **more):
    more = {"save_every": 2, "num_groups_to_log": 0, "eval_every": 0} | more
    return train.Config(
        learning_rate=1e-4,
        dataset_builder=QuestionsBuilder(),
        model_name="some/model",
        recipe_name="test",
        max_tokens=4,
        log_path=str(folder),
        **more,
    )


OPTIONS = {"success": "correct", "features": "none", "cache": None}


def run(folder, end, *, service=None, save_every=2, **options):
    """Steps of tinker-cookbook's own loop until `end`, from the checkpoint in `folder` if there is one."""
    config = with_vip(config_in(folder, num_epochs=9, save_every=save_every), **(OPTIONS | options))
    service, log = service or Service(), Log()

    async def loop():
        dataset, _ = await config.dataset_builder()
        await train.do_sync_training(
            start_batch=dataset.step,
            end_batch=end,
            num_batches=end,
            config=config,
            training_client=service,
            kl_reference_client=None,
            evaluators=[],
            dataset=train.EpochCycledRLDataset(dataset, 9),
            ml_logger=log,
            tokenizer=SimpleNamespace(decode=str),
            strategy=config.effective_rollout_strategy(),
            checkpoint_mgr=CheckpointManager(service, None, str(folder), save_every=config.save_every),
        )
        return dataset

    return asyncio.run(loop()), service, log


def trained(data):
    """Of the datums of a step: question -> (outcomes, advantages)."""
    groups = {}
    for datum in data:
        question = datum.model_input.to_ints()[0] - 100
        outcomes, advantages = groups.setdefault(question, ([], []))
        outcomes.append(datum.loss_fn_inputs["target_tokens"].tolist()[0])
        advantages.append(datum.loss_fn_inputs["advantages"].tolist()[0])
    return groups


def test_the_loop_has_the_planned_counts_and_trains_on_weighted_advantages(tmp_path):
    dataset, service, log = run(tmp_path, 6)
    by_hand = VIP(features="none", cache=None)
    for step, data in enumerate(service.steps):
        groups = trained(data)
        questions = [step % 2 * Q + q for q in range(Q)]
        counts = [len(groups[q][0]) for q in questions]
        planned = by_hand.allocate([str(q) for q in questions], Q * N).counts
        assert sum(counts) == Q * N and counts == planned.tolist()
        outcomes = [groups[q][0] for q in questions]
        flat = [outcome for group in outcomes for outcome in group]
        expected = group_advantages(flat, counts) * rollout_weights(counts) * (1 - 1 / N)
        np.testing.assert_allclose(np.concatenate([groups[q][1] for q in questions]), expected, atol=1e-6)
        logprobs = [[float(np.log(CHANCE[q] if right else 1 - CHANCE[q])) for right in groups[q][0]] for q in questions]
        by_hand.observe([str(q) for q in questions], outcomes, logprobs=logprobs)
        assert log.rows[step]["env/all/reward/total"] == pytest.approx(np.mean(flat), abs=1e-6)
        assert log.rows[step]["env/all/vip/reward"] == pytest.approx(np.mean(flat))
        assert log.rows[step]["env/all/vip/counts/max"] == max(counts)
    assert len(set(counts)) > 1
    assert dataset.step == 6


def test_equal_groups_train_on_the_advantages_of_stock_tinker_cookbook(tmp_path):
    _, service, _ = run(tmp_path, 1, strategy="uniform")
    for outcomes, advantages in trained(service.steps[0]).values():
        step = Transition(tinker.ModelInput.empty(), None, 0.0, True)
        stock = TrajectoryGroup(
            [Trajectory([step], tinker.ModelInput.empty()) for _ in outcomes], [float(o) for o in outcomes], []
        )
        assert len(outcomes) == N
        np.testing.assert_allclose(advantages, compute_advantages([stock])[0], atol=1e-6)


def test_a_resumed_run_continues_from_its_checkpoint(tmp_path):
    through, _, _ = run(tmp_path / "a", 4)
    rng = Service()
    run(tmp_path / "b", 3, service=rng)  # the last checkpoint is that of step 2; step 3 is lost
    resumed, _, _ = run(tmp_path / "b", 2, service=rng)
    assert resumed.step == 2
    known = VIP(features="none", cache=None)
    known.load(tmp_path / "a" / STATE_FOLDER / "000002.safetensors")
    prompts = [str(q) for q in range(2 * Q)]
    assert (resumed.vip.predict(prompts) == known.predict(prompts)).all()
    assert resumed.vip.predict(prompts)[3] != through.vip.predict(prompts)[3]
    with pytest.raises(InputError, match="batch 1"):
        resumed.get_batch(1)
    assert len(resumed.get_batch(0)) == Q


def test_states_are_kept_for_checkpoints_and_the_last_two_steps(tmp_path):
    run(tmp_path, 8, save_every=3)
    assert sorted(int(path.stem) for path in (tmp_path / STATE_FOLDER).iterdir()) == [3, 6, 7, 8]


def test_a_checkpoint_without_state_starts_without_history(tmp_path, caplog):
    (tmp_path / "checkpoints.jsonl").write_text(
        json.dumps({"name": "000003", "batch": 3, "state_path": "fake://state/000003"}) + "\n"
    )
    dataset, _, _ = run(tmp_path, 4)
    assert dataset.step == 4 and "000003.safetensors" in caplog.text


class Connection(Service):
    """The service that `rl.train.main` connects to."""

    def __call__(self, **settings):
        return self

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def create_lora_training_client(self, model_name, rank, user_metadata):
        return soon(self)

    def create_training_client_from_state_with_optimizer(self, path, user_metadata):
        return soon(self)


def test_main_runs_writes_its_metrics_and_resumes(tmp_path, monkeypatch):
    service = Connection()
    monkeypatch.setattr(train.tinker, "ServiceClient", service)
    monkeypatch.setattr(train, "get_tokenizer", lambda name: SimpleNamespace(decode=str))
    monkeypatch.setattr(train.checkpoint_utils, "check_renderer_name_for_checkpoint_async", lambda *_: soon(None))
    for steps in (3, 5):  # the second run continues from the final checkpoint of the first
        settings = {"num_epochs": 9, "max_steps": steps, "num_groups_to_log": 1, "remove_constant_reward_groups": True}
        asyncio.run(train.main(with_vip(config_in(tmp_path, **settings), **OPTIONS)))
    assert len(service.steps) == 5
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert {row["step"] for row in rows if "env/all/vip/reward" in row} == set(range(5))
    assert (tmp_path / STATE_FOLDER / "000005.safetensors").exists()


def planned(folder, **options):
    return asyncio.run(with_vip(config_in(folder), **(OPTIONS | options)).dataset_builder())[0]


def rolled(builder, service=None, strategy=None):
    return asyncio.run(
        rollouts.do_group_rollout_and_filter_constant_reward(
            service or Service(), builder, 4, 1.0, False, enable_logging=False, strategy=strategy
        )
    )


class Flaky(EnvGroupBuilder):
    """A group whose grader fails."""

    def __init__(self, num_envs):
        self.num_envs = num_envs

    async def make_envs(self):
        return [Question(0) for _ in range(self.num_envs)]

    async def compute_group_rewards(self, trajectory_group, env_group):
        raise RuntimeError("no grader")


def test_a_failed_group_counts_as_unscorable_and_the_run_goes_on(tmp_path, caplog):
    dataset = planned(tmp_path)
    builders = dataset.get_batch(0)
    builders[2].inner = Flaky(int(dataset._batch.counts[2]))
    assert [rolled(builder, strategy=RetryOnFailure()) is None for builder in builders] == [q == 2 for q in range(Q)]
    assert dataset.step == 0
    dataset.get_batch(1)
    assert dataset.step == 1 and "1 groups failed" in caplog.text
    assert dataset.vip.metrics()[UNSCORABLE] > 0


def test_an_exception_of_a_group_names_its_builder_and_the_step(tmp_path):
    builder = planned(tmp_path).get_batch(0)[2]
    builder.inner = Flaky(2)
    with pytest.raises(RuntimeError, match="no grader") as error:
        asyncio.run(builder.compute_group_rewards([], []))
    assert "Flaky" in error.value.__notes__[0] and "step 1" in error.value.__notes__[0]


def test_a_group_that_lost_rollouts_has_the_weight_of_a_whole_one(tmp_path):
    dataset = planned(tmp_path)
    builder = max(dataset.get_batch(0), key=lambda builder: builder.inner.num_envs)
    group = rolled(ProblemGroupBuilder(partial(Question, 3), builder.inner.num_envs))
    left = group.trajectories_G[1:]
    asyncio.run(builder.make_envs())
    given = asyncio.run(builder.compute_group_rewards(left, []))
    totals = np.array([total for total, _ in given]) + [t.transitions[0].reward for t in left]
    rewards = [trajectory.transitions[0].reward for trajectory in left]
    expected = group_advantages(rewards, [len(left)]) * N / len(left) * (1 - 1 / N)
    np.testing.assert_allclose(totals - totals.mean(), expected, atol=1e-12)
    assert np.abs(expected).max() > 0
    dataset.get_batch(1)
    assert dataset.vip.metrics()[UNSCORABLE] == pytest.approx(1 - len(left) / (Q * N))


class Judge(ProblemGroupBuilder):
    """Continuous group rewards, one of them NaN."""

    async def compute_group_rewards(self, trajectory_group, env_group):
        return [(float("nan") if i == 1 else (i + 0.5) / 70, {"score": i}) for i in range(len(trajectory_group))]


def test_an_unscorable_rollout_has_no_advantage_and_does_not_affect_others(tmp_path):
    dataset = planned(tmp_path, estimator="dr_grpo")
    builder = dataset.get_batch(0)[3]
    builder.inner = Judge(builder.inner.env_thunk, builder.inner.num_envs)
    (advantages,) = compute_advantages([rolled(builder)])
    assert torch.isfinite(advantages).all() and advantages.abs().max() > 0.01
    assert advantages[1] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("estimator, baseline, factor", [("rloo", "leave_one_out", 1 - 3 / 16), ("dr_grpo", "mean", 1)])
def test_centred_totals_are_weighted_advantages_and_keep_the_mean(estimator, baseline, factor):
    rng, counts = np.random.default_rng(0), [2, 5, 9]
    rewards = np.split(rng.random(16), np.cumsum(counts)[:-1])
    totals = [shaped_totals(group, np.array(counts), estimator) for group in rewards]
    centred = np.concatenate([total - total.mean() for total in totals])
    expected = group_advantages(np.concatenate(rewards), counts, baseline) * rollout_weights(counts) * factor
    np.testing.assert_allclose(centred, expected, atol=1e-12)
    np.testing.assert_allclose([t.mean() for t in totals], [r.mean() for r in rewards])


@pytest.mark.parametrize("success, named", [("corect", r"success.*'corect'.*score"), (None, r"success")])
def test_a_first_batch_without_a_readable_reward_stops_the_run(tmp_path, success, named):
    dataset = planned(tmp_path, success=success)
    builders = dataset.get_batch(0)
    for builder in builders:
        builder.inner = Judge(builder.inner.env_thunk, builder.inner.num_envs)
    with pytest.raises(InputError, match=named):
        for builder in builders:
            rolled(builder)


class Sloppy(Question):
    """Never well formed, so that its total rewards are -0.1 and 0.9."""

    def check_format(self, sample_str):
        return False


def test_a_metric_of_the_environment_decides_about_success(tmp_path):
    dataset = planned(tmp_path, success="correct")
    for q, builder in enumerate(dataset.get_batch(0)):
        builder.inner = ProblemGroupBuilder(partial(Sloppy, q), builder.inner.num_envs)
        rolled(builder)
    assert dataset.step == 1 and dataset.vip.metrics()[UNSCORABLE] == 0


def test_settings_that_break_the_plan_are_refused(tmp_path):
    asynchronous = train.AsyncConfig(max_steps_off_policy=1, groups_per_batch=Q)
    with pytest.raises(InputError, match="async_config"):
        with_vip(config_in(tmp_path, async_config=asynchronous))
    stream = train.StreamMinibatchConfig(groups_per_batch=Q, num_minibatches=2)
    with pytest.raises(InputError, match="stream_minibatch_config"):
        with_vip(config_in(tmp_path, stream_minibatch_config=stream))
    clamp = TerminationRewardPolicy(zero_reward_on_limit=True)
    with pytest.raises(InputError, match="zero_reward_on_limit"):
        with_vip(config_in(tmp_path, termination=clamp))
    assert isinstance(with_vip(config_in(tmp_path)).dataset_builder, VIPDatasetBuilder)


@pytest.mark.parametrize(
    "given, named",
    [
        *(({name: None}, name) for name in REFUSED),
        ({"low": 2}, "'low'"),
        ({"min_rollouts": 2.5}, "min_rollouts is 2.5"),
        ({"strategy": "oracle"}, "'oracle'"),
        ({"estimator": "grpo"}, "'grpo'"),
    ],
)
def test_options_that_cannot_be_used(tmp_path, given, named):
    with pytest.raises(InputError, match=named):
        with_vip(config_in(tmp_path), **given)


def test_the_options_are_those_of_vip(tmp_path):
    settings = with_vip(config_in(tmp_path)).dataset_builder.settings
    assert settings == EngineSettings(estimator="rloo")
    assert all(f"\n{option.name} (" in with_vip.__doc__ for option in options(without=REFUSED))
    assert not any(f"\n{name} (" in with_vip.__doc__ for name in REFUSED)


def test_a_warm_start_comes_before_the_first_step_only(tmp_path):
    log = tmp_path / "log.jsonl"
    log.write_text(json.dumps({"prompt": "3", "rollouts": 8, "successes": [8, 8, 8]}) + "\n")
    known, unknown = planned(tmp_path, warm_start=str(log)).vip.predict(["3", "4"])
    assert known > 0.9 > unknown
    run(tmp_path, 2)
    resumed, again = planned(tmp_path), planned(tmp_path, warm_start=str(log))
    assert again.step == 2 and again.vip.predict(["3"]) == resumed.vip.predict(["3"])


def test_log_probabilities_may_be_left_out(tmp_path):
    dataset, heard = planned(tmp_path, use_logprobs=False), {}
    observe = dataset.vip.observe
    dataset.vip.observe = lambda prompts, rewards, **more: heard.update(more) or observe(prompts, rewards, **more)
    for builder in dataset.get_batch(0):
        rolled(builder)
    assert heard == {"logprobs": None}


def test_prefetching_and_rollout_executors_are_refused(tmp_path):
    dataset = planned(tmp_path)
    builders = dataset.get_batch(0)
    with pytest.raises(InputError, match="one at a time"):
        dataset.get_batch(1)
    with pytest.raises(TypeError, match="rollout executor"):
        pickle.dumps(builders[0])
    with ThreadPoolExecutor(1) as pool:
        rollouts.set_rollout_executor(pool)
        try:
            with pytest.raises(InputError, match="rollout executor"):
                planned(tmp_path).get_batch(0)
        finally:
            rollouts.set_rollout_executor(None)


def test_groups_of_another_size_than_planned_are_refused(tmp_path):
    builder = planned(tmp_path).get_batch(0)[0]
    builder.inner = resized(builder.inner, group_size(builder.inner) + 1)
    with pytest.raises(InputError, match="environments"):
        asyncio.run(builder.make_envs())


def test_builders_are_resized_by_the_name_of_their_own_field():
    flaky = Flaky(4)
    assert group_size(resized(flaky, 7)) == 7 and flaky.num_envs == 4
    assert group_size(resized(SimpleNamespace(group_size=4), 7)) == 7
    with pytest.raises(InputError, match=r"num_envs.*group_size"):
        resized(SimpleNamespace(size=4), 7)


def test_other_builders_need_a_function_from_builder_to_prompt(tmp_path):
    class Others(Questions):
        def get_batch(self, index):
            return [Flaky(N) for _ in range(Q)]

    @chz.chz
    class OthersBuilder(RLDatasetBuilder):
        async def __call__(self):
            return Others(), None

    config = chz.replace(config_in(tmp_path), dataset_builder=OthersBuilder())
    with pytest.raises(InputError, match=r"Flaky.*prompt="):
        asyncio.run(with_vip(config, **OPTIONS).dataset_builder())[0].get_batch(0)
    named = with_vip(config, prompt=lambda builder: f"{builder.num_envs} tries", **OPTIONS)
    assert len(asyncio.run(named.dataset_builder())[0].get_batch(0)) == Q


def test_contract_with_the_installed_tinker_cookbook():
    CONTRACT.check()
    assert version("tinker-cookbook") == CONTRACT.requirement.partition("==")[2]
