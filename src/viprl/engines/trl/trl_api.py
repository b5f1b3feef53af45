"""What the trainers use of TRL."""

from __future__ import annotations

from viprl.engines.version_contract import VersionContract

SUPPORTED = "trl>=1.9,<1.17"

OVERRIDDEN: dict[str, tuple[str, ...]] = {
    "_generate_and_score_completions": ("inputs",),
    "_calculate_rewards": (),
    "_get_train_sampler": ("dataset",),
    "_save_checkpoint": ("model", "trial"),
    "_load_optimizer_and_scheduler": ("checkpoint",),
}
"""Methods that the trainers override, with the arguments that they read."""

CALLED: dict[str, tuple[str, ...]] = {"_log_completion_extra": ("column", "values"), "_get_output_dir": ("trial",)}

CONTRACT = VersionContract(
    SUPPORTED,
    {
        "trl": {
            f"{trainer}.{method}": arguments
            for trainer in ("GRPOTrainer", "RLOOTrainer")
            for method, arguments in (OVERRIDDEN | CALLED).items()
        },
        "trl.trainer.utils": {
            "RepeatSampler.__init__": (
                "data_source",
                "mini_repeat_count",
                "batch_size",
                "repeat_count",
                "shuffle",
                "seed",
            ),
            "get_config_model_id": ("config",),
        },
    },
)
