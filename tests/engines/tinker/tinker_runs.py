"""Runs of tinker-cookbook's own synchronous loop; only the service that samples and trains is fake."""

import asyncio
from functools import partial
from types import SimpleNamespace

import chz
import numpy as np
import tinker
from tinker_cookbook.checkpoint_utils import CheckpointManager
from tinker_cookbook.renderers.base import ParseTermination
from tinker_cookbook.rl import rollouts, train
from tinker_cookbook.rl.problem_env import ProblemEnv, ProblemGroupBuilder
from tinker_cookbook.rl.types import EnvGroupBuilder, RLDataset, RLDatasetBuilder

from viprl.engines.tinker import with_vip

Q, N = 6, 8
CHANCE = [0.02, 0.1, 0.3, 0.5, 0.95, 0.99] * 2
"""Success probability of each question; two batches."""


class Renderer:
    get_stop_sequences = staticmethod(list)

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

    check_answer = staticmethod(lambda sample_str: sample_str == "1")
    check_format = staticmethod(lambda sample_str: True)
    get_reference_answer = staticmethod(lambda: "1")


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

    optim_step = staticmethod(lambda adam_params: soon(SimpleNamespace(metrics={})))

    def save_weights_and_get_sampling_client(self, record_stability_info=False):
        return soon(self)

    def create_sampling_client(self, path, record_stability_info=False):
        return SimpleNamespace(result=lambda: self)

    def save_state(self, name, ttl_seconds=None):
        return soon(SimpleNamespace(path=f"fake://{name}"))

    save_weights_for_sampler = save_state


def config_in(folder, **more):
    options = {
        "learning_rate": 1e-4, "dataset_builder": QuestionsBuilder(), "model_name": "some/model", "recipe_name": "test",
        "max_tokens": 4, "log_path": str(folder), "save_every": 2, "num_groups_to_log": 0, "eval_every": 0,
    }  # fmt: skip
    return train.Config(**(options | more))


OPTIONS = {"success": "correct", "features": "none", "cache": None}


def run(folder, end, *, service=None, save_every=2, **options):
    """Steps of tinker-cookbook's own loop until `end`, from the checkpoint in `folder` if there is one."""
    config = with_vip(config_in(folder, num_epochs=9, save_every=save_every), **(OPTIONS | options))
    service, rows = service or Service(), []
    log = SimpleNamespace(
        rows=rows, store=None, log_metrics=lambda metrics, step=None: rows.append(metrics), log_summary=lambda _: None
    )

    async def loop():
        dataset, _ = await config.dataset_builder()
        await train.do_sync_training(
            start_batch=dataset.step, end_batch=end, num_batches=end, config=config, training_client=service,
            kl_reference_client=None, evaluators=[], dataset=train.EpochCycledRLDataset(dataset, 9), ml_logger=log,
            tokenizer=SimpleNamespace(decode=str), strategy=config.effective_rollout_strategy(),
            checkpoint_mgr=CheckpointManager(service, None, str(folder), save_every=config.save_every),
        )  # fmt: skip
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
