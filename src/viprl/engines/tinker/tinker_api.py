"""What the adapter uses of tinker-cookbook."""

from __future__ import annotations

from viprl.engines.version_contract import VersionContract

CONTRACT = VersionContract(
    "tinker-cookbook==0.6.1",
    {
        "tinker_cookbook.rl.types": {
            "EnvGroupBuilder": ("make_envs", "compute_group_rewards", "cleanup", "logging_tags"),
            "EnvGroupBuilder.compute_group_rewards": ("trajectory_group", "env_group"),
            "RLDataset.get_batch": ("index",),
            "RLDatasetBuilder": ("__call__",),
            "Trajectory": ("transitions",),
            "Transition": ("ac", "reward", "metrics"),
        },
        "tinker_cookbook.completers": {"TokensWithLogprobs": ("maybe_logprobs", "tokens")},
        "tinker_cookbook.rl.rollout_strategy": {
            "RolloutStrategy": ("catches_group_errors",),
            "RolloutStrategy.execute": ("env_group_builder", "policy"),
            "RolloutResult": ("trajectories", "envs", "errors"),
        },
        "tinker_cookbook.rl.rollouts": {"get_rollout_executor": ()},
        "tinker_cookbook.rl.rollout_limits": {
            "TerminationRewardPolicy": ("zero_reward_on_limit", "grader_timeout_seconds")
        },
        "tinker_cookbook.checkpoint_utils": {
            "get_last_checkpoint": ("log_dir",),
            "load_checkpoints_file": ("log_dir",),
            "CheckpointRecord": ("batch",),
        },
        "tinker_cookbook.rl.train": {
            "Config": (
                "dataset_builder",
                "log_path",
                "async_config",
                "stream_minibatch_config",
                "effective_termination",
                "effective_rollout_strategy",
                "rollout_error_tolerance",
            )
        },
    },
)
