"""What the trainers use of TRL."""

from __future__ import annotations

from viprl.engines.version_contract import VersionContract

USED: dict[str, tuple[str, ...]] = {
    "_generate_and_score_completions": ("inputs",),
    "_calculate_rewards": ("inputs", "prompts", "completions", "completion_ids_list"),
    "_prepare_inputs": ("generation_batch",),
    "compute_loss": ("model", "inputs"),
    "get_train_dataloader": (),
    "_get_train_sampler": ("dataset",),
    "_set_signature_columns_if_needed": (),
    "_save_checkpoint": ("model", "trial"),
    "save_model": ("output_dir",),
    "_load_optimizer_and_scheduler": ("checkpoint",),
    "_log_completion_extra": ("column", "values"),
    "_get_output_dir": ("trial",),
}
"""Methods that our trainers override or call, with the arguments that they use."""
SAMPLER = ("data_source", "mini_repeat_count", "batch_size", "repeat_count", "shuffle", "seed")
"""Arguments and attributes of `RepeatSampler`."""

CONTRACT = VersionContract(
    "trl>=1.9,<1.17",
    {
        "trl": {f"{trainer}.{method}": USED[method] for trainer in ("GRPOTrainer", "RLOOTrainer") for method in USED},
        "trl.trainer.utils": {
            "RepeatSampler.__init__": SAMPLER,
            "get_config_model_id": ("config",),
            "split_pixel_values_by_grid": ("batch",),
            "unsplit_pixel_values_by_grid": ("batch",),
        },
    },
)
