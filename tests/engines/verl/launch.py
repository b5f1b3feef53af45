"""Starts `python -m verl.trainer.main_ppo` on real Ray as a user would, and reads its output files."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import toy

HERE = Path(__file__).parent
FP32 = "fsdp_config.mixed_precision.{}_dtype"
PLACES = {
    "algorithm": {"adv_estimator": "grpo"},
    "data": {
        "train_batch_size": 8, "max_prompt_length": 16, "max_response_length": 6, "seed": 1,
        "dataloader_num_workers": 0,
    },
    "actor_rollout_ref.model": {"use_remove_padding": False, "enable_gradient_checkpointing": False},
    "+actor_rollout_ref.model": {"override_config.attn_implementation": "sdpa"},
    "actor_rollout_ref.actor": {
        "strategy": "fsdp2", "ppo_mini_batch_size": 8, "ppo_micro_batch_size_per_gpu": 8, "optim.lr": 1e-2,
        "use_torch_compile": False, "fsdp_config.use_torch_compile": False,
    },
    "+actor_rollout_ref.actor": {FP32.format(name): "fp32" for name in ("param", "reduce", "buffer")},
    "actor_rollout_ref.rollout": {
        "name": "cpu", "n": 4, "log_prob_micro_batch_size_per_gpu": 8, "agent.num_workers": 1,
    },
    "reward": {"num_workers": 1},
    "reward.custom_reward_function": {"path": HERE / "toy.py", "name": "compute_score"},
    "transfer_queue.backend.SimpleStorage": {"num_data_storage_units": 1},
    "trainer": {
        "device": "cpu", "nnodes": 1, "logger": "[console,file]", "val_before_train": False, "test_freq": -1,
        "total_epochs": 20, "resume_mode": "disable",
    },
    "ray_kwargs.ray_init": {"num_cpus": 16},
    "+ray_kwargs.ray_init": {"include_dashboard": False, "object_store_memory": 200_000_000},
}  # fmt: skip
WORKING = {f"{place}.{name}": value for place, named in PLACES.items() for name, value in named.items()}
"""A command that works with stock verl."""
VIP = {"trainer.v1.trainer_mode": "vip_sync", "algorithm.adv_estimator": "vip_rloo"}
"""The overrides for adaptive counts."""


class Run:
    """One training in `folder`: model, data, dumps, checkpoints, log."""

    def __init__(self, folder: Path, *, ranks: int = 1, prompts: int = 16, tools: bool = False) -> None:
        self.folder, self.ranks = folder, ranks
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "model").exists():
            toy.save_model(folder / "model")
        if not (folder / "data.parquet").exists():
            toy.save_data(folder / "data.parquet", prompts, tools)

    def command(self, **more: object) -> list[str]:
        own = {
            "data.train_files": self.folder / "data.parquet",
            "data.val_files": self.folder / "data.parquet",
            "actor_rollout_ref.model.path": self.folder / "model",
            "actor_rollout_ref.rollout.tensor_model_parallel_size": self.ranks,  # one server for all ranks
            "trainer.n_gpus_per_node": self.ranks,
            "+ray_kwargs.ray_init.num_gpus": self.ranks,
            "trainer.default_local_dir": self.folder / "checkpoints",
            "trainer.rollout_data_dir": self.folder / "dump",
            "hydra.run.dir": self.folder / "hydra",
        }
        options = WORKING | own | VIP | more
        return [sys.executable, "-m", "verl.trainer.main_ppo", *(f"{k}={v}" for k, v in options.items())]

    def start(self, environment: dict[str, str] | None = None, **more: object) -> subprocess.Popen[bytes]:
        env = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")]),
            "VERL_PLATFORM": "cpu",
            "VERL_ENGINE_DEVICE": "cuda",  # under which verl registers the FSDP engine
            "VERL_USE_EXTERNAL_MODULES": "verl_cpu",
            "VERL_FILE_LOGGER_PATH": str(self.folder / "metrics.jsonl"),
            "OMP_NUM_THREADS": "1",
            "PYTHONHASHSEED": "0",
            "TOKENIZERS_PARALLELISM": "false",
            "HYDRA_FULL_ERROR": "1",
            "RAY_DEDUP_LOGS": "0",
            "RAY_worker_niceness": "0",  # Ray's workers are otherwise starved by whatever else runs on two cores
            "RAY_USAGE_STATS_ENABLED": "0",
            "WANDB_MODE": "disabled",
            **(environment or {}),
        }
        with (self.folder / "log.txt").open("ab") as log:
            return subprocess.Popen(self.command(**more), cwd=self.folder, env=env, stdout=log, stderr=log)

    def finish(self, process: subprocess.Popen[bytes], timeout: float = 300) -> int:
        """Exit status. Raises AssertionError with the log if the run does not end in time."""
        try:
            return process.wait(timeout)
        except subprocess.TimeoutExpired:
            kill(process)
            raise AssertionError(f"the run did not end within {timeout} s:\n{self.log()[-4000:]}") from None

    def run(self, environment: dict[str, str] | None = None, timeout: float = 300, **more: object) -> None:
        status = self.finish(self.start(environment, **more), timeout)
        assert status == 0, f"exit status {status}:\n{self.log()[-6000:]}"

    def until(self, condition: Callable[[], bool], process: subprocess.Popen[bytes], timeout: float = 300) -> None:
        """Wait for `condition` while `process` lives."""
        end = time.monotonic() + timeout
        while not condition():
            assert process.poll() is None, f"the run ended too early:\n{self.log()[-6000:]}"
            assert time.monotonic() < end, f"nothing within {timeout} s:\n{self.log()[-4000:]}"
            time.sleep(0.2)

    def log(self) -> str:
        return (self.folder / "log.txt").read_text(errors="replace")

    def dump(self, step: int) -> list[dict]:
        return [json.loads(line) for line in (self.folder / "dump" / f"{step}.jsonl").read_text().splitlines()]

    def metrics(self) -> dict[int, dict]:
        lines = [json.loads(line) for line in (self.folder / "metrics.jsonl").read_text().splitlines()]
        return {line["step"]: line["data"] for line in lines}


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill the driver and every process that it started, Ray's included, as if the machine failed."""
    with contextlib.suppress(psutil.NoSuchProcess):
        driver = psutil.Process(process.pid)
        for victim in [*driver.children(recursive=True), driver]:
            with contextlib.suppress(psutil.NoSuchProcess):
                victim.kill()
    process.wait()
