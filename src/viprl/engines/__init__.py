"""Adapters for training engines. What all of them share is here; what is specific to one is in its folder.

planned_batch     the plan of one step: prompts, counts, values of each prompt
run_lines         the lines at the start and at the end of a run
scorable          which rewards can be trained on
success           which reward decides whether a rollout succeeded; stops a run if the first batch has none
vip_builder       checked settings, the VIP that they describe, its state in a checkpoint
version_contract  the APIs that an adapter uses, checked at start-up
warm_start        learning from the log of an earlier run
trl/              VIPGRPOTrainer and VIPRLOOTrainer for TRL
verl/             trainer mode vip_sync for verl
tinker/           with_vip(config) for tinker-cookbook
"""
