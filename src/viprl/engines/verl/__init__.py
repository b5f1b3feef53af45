"""VIP for verl: trainer mode `vip_sync` and the advantage estimators `vip_rloo` and `vip_dr_grpo`, see docs/verl.md.

verl loads `viprl.engines.verl.plugin` by itself (entry-point group `verl.plugins`); nothing here needs an import.

    plugin       what verl loads in every process: registration, or the reason why it failed
    options      the namespace trainer.v1.vip_sync
    consistency  what the rest of verl's configuration must say: refused, set and logged, reported
    contract     the methods of verl that are built on, looked at when a trainer starts
    rollouts     verl's rows: which rollouts came, which were planned
    advantages   ragged groups to advantages
    trainer      VIP inside verl's synchronous trainer
    warm_start   outcomes of an earlier run
    data         parquet files as verl reads them
"""
