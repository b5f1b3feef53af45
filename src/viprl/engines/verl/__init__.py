"""VIP for verl: trainer mode `vip_sync`, advantage estimators `vip_rloo` and `vip_dr_grpo` (docs/verl.md).

verl loads `viprl.engines.verl.plugin` by itself (entry-point group `verl.plugins`); nothing here needs an import.

    plugin        what verl loads in every process: registration, or the reason why it failed
    namespace     the options in trainer.v1.vip_sync
    consistency   requirements on the rest of verl's configuration: refused, set, reported
    verl_api      what the trainer uses of verl
    rollouts      rows of verl's queue -> rollouts of the planned prompts
    queue_reader  reads them beside the driver
    estimators    rewards of ragged groups -> advantages
    sync_trainer  verl's synchronous trainer with VIP
"""
