"""Which settings may differ between a run and its continuation.

Everything that is not listed here changes what a run learns: the model, the data and how they are read, the rewards,
the allocation, the sampling of completions, the loss and the optimizer. A setting that a future version adds counts as
such until it is listed.
"""

from __future__ import annotations

_WHERE_IT_RUNS = (
    "use_cpu", "local_rank", "debug", "full_determinism", "gradient_checkpointing", "gradient_checkpointing_kwargs",
    "activation_checkpointing", "activation_checkpointing_kwargs", "torch_compile", "torch_compile_backend",
    "torch_compile_mode", "torch_empty_cache_steps", "dataloader_num_workers", "dataloader_pin_memory",
    "dataloader_persistent_workers", "dataloader_prefetch_factor", "dataloader_multiprocessing_context",
    "dataloader_in_order", "ddp_backend", "ddp_broadcast_buffers", "ddp_bucket_cap_mb", "ddp_find_unused_parameters",
    "ddp_static_graph", "ddp_timeout", "ds3_gather_for_generation", "use_cache", "skip_memory_metrics",
    "trust_remote_code", "vip_cache", "vllm_gpu_memory_utilization", "vllm_tensor_parallel_size",
    "vllm_enable_sleep_mode", "vllm_mode", "vllm_server_base_url", "vllm_server_host", "vllm_server_port",
    "vllm_server_timeout", "vllm_group_port", "vllm_model_impl",
)  # fmt: skip
_LOGS = (
    "output_dir", "run_name", "project", "report_to", "disable_tqdm", "logging_dir", "logging_first_step",
    "logging_nan_inf_filter", "logging_steps", "logging_strategy", "log_level", "log_level_replica",
    "log_on_each_node", "log_completions", "log_completions_hub_repo", "log_multimodal", "log_unique_prompts",
    "num_completions_to_print", "include_num_input_tokens_seen", "include_tokens_per_second", "trackio_bucket_id",
    "trackio_space_id", "trackio_static_space_id", "wandb_log_unique_prompts", "vip_shadow",
)  # fmt: skip
_CHECKPOINTS = (
    "save_steps", "save_strategy", "save_total_limit", "save_only_model", "save_on_each_node", "save_safetensors",
    "load_best_model_at_end", "metric_for_best_model", "greater_is_better", "enable_jit_checkpoint",
    "restore_callback_states_from_checkpoint", "resume_from_checkpoint", "overwrite_output_dir", "push_to_hub",
    "hub_always_push", "hub_model_id", "hub_private_repo", "hub_revision", "hub_strategy", "hub_token",
)  # fmt: skip
_EVALUATIONS = (
    "eval_dataset", "eval_split", "eval_strategy", "eval_steps", "eval_delay", "eval_on_start",
    "eval_accumulation_steps", "eval_do_concat_batches", "eval_use_gather_object", "per_device_eval_batch_size",
    "num_generations_eval", "batch_eval_metrics", "prediction_loss_only", "include_for_metrics", "bf16_full_eval",
    "fp16_full_eval", "do_train", "do_eval", "do_predict",
)  # fmt: skip

BATCHES = ("update_batch_size", "generation_batch_size")
"""Rollouts of an optimizer step and of a generation batch, over all processes."""
BATCH_PARTS = ("per_device_train_batch_size", "gradient_accumulation_steps", "steps_per_generation")
"""How the processes share these batches. They may change if `BATCHES` do not."""
WITHOUT_EFFECT = frozenset((*_WHERE_IT_RUNS, *BATCH_PARTS, *_LOGS, *_CHECKPOINTS, *_EVALUATIONS))
"""Settings that do not change what a run learns, apart from rounding and the random numbers that evaluations draw."""
MAY_CHANGE = ("max_steps", "num_train_epochs", "vip_strategy")
"""Settings that change the steps to come, and that a continuation may change on purpose."""
PATHS = ("model", "dataset", "tokenizer")
"""Settings that may be spelled as another path to the same file or folder."""
