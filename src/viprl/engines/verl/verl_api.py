"""What the trainer uses of verl and of its queue."""

from __future__ import annotations

from viprl.engines.version_contract import VersionContract

CONTRACT = VersionContract(
    "verl==0.9.1",
    {
        "verl.trainer.ppo.v1.trainer_sync": {
            "PPOTrainerSync.__init__": ("config",),
            "PPOTrainerSync._init_dataloader": (),
            "PPOTrainerSync._build_replay_buffer": (),
            "PPOTrainerSync._next_train_batch": ("num_prompts",),
            "PPOTrainerSync._submit_batch_to_rollout": ("batch",),
            "PPOTrainerSync._get_required_batch_multiple": ("dp_size",),
            "PPOTrainerSync._balance_batch": ("batch", "metrics"),
            "PPOTrainerSync._compute_advantage": ("batch", "metrics"),
            "PPOTrainerSync.step": ("metrics",),
            "PPOTrainerSync._save_checkpoint": (),
            "PPOTrainerSync._load_checkpoint": (),
            "PPOTrainerSync.fit": ("agent_loop_manager",),
        },
        "verl.trainer.ppo.v1.replay_buffer": {"ReplayBuffer.sample": ("global_steps", "partition_id", "batch_size")},
        "verl.utils.tensordict_utils": {
            "assign_non_tensor_stack": ("tensor_dict", "key", "val"),
            "index_select_tensor_dict": ("batch", "indices"),
        },
        "transfer_queue": {
            "init": (),
            "kv_batch_get": ("keys", "partition_id", "select_fields"),
            "KVBatchMeta.reorder": ("indexes",),
            "KVBatchMeta": ("keys", "tags"),
        },
        "verl.trainer.ppo.core_algos": {"register_adv_est": ("name_or_enum",)},
        "verl.trainer.ppo.v1.trainer_base": {"register_trainer": ("name",)},
    },
)
