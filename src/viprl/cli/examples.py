"""The end of each help text: examples, and the page of the documentation."""

from __future__ import annotations

_ENDS = {
    "quickstart": ("README.md", "viprl quickstart --seeds 3 --jobs 2"),
    "init": ("docs/train.md", "viprl init mine.yaml --model Qwen/Qwen2.5-0.5B-Instruct --dataset rows.jsonl"),
    "train": (
        "docs/train.md",
        "viprl train --config mine.yaml --dry-run",
        "viprl train --config mine.yaml --set max_steps=200 --set vip_strategy=uniform",
        "torchrun --nproc_per_node 8 -m viprl train --config mine.yaml",
    ),
    "sweep": ("docs/train.md", "viprl sweep --config sweep.yaml --dry-run", "viprl sweep --config sweep.yaml"),
    "data show": (
        "docs/data.md",
        "viprl data show rows.jsonl",
        "viprl data show gsm8k --model Qwen/Qwen2.5-0.5B-Instruct",
    ),
    "data verl": ("docs/data.md", "viprl data verl gsm8k --out gsm8k.parquet"),
    "evaluate": (
        "docs/evaluate.md",
        "viprl evaluate --model runs/mine --dataset rows.jsonl --out runs/mine/rows",
        "viprl evaluate --model Qwen/Qwen2.5-0.5B-Instruct --dataset aime24 --n 8 --out runs/aime24",
        "viprl evaluate --generations samples.jsonl --k 1,8 --verify mine:correct",
    ),
    "variance": (
        "docs/variance.md",
        "viprl variance --model runs/mine",
        "viprl variance --model Qwen/Qwen2.5-0.5B-Instruct --dataset rows.jsonl --reward mine:correct --prompts 128",
    ),
    "replay": ("docs/replay.md", "viprl replay runs/mine --strategies default,uniform --report runs/mine/replay"),
    "doctor": ("docs/doctor.md", "viprl doctor runs/mine", "viprl doctor runs/mine --strategy default && echo healthy"),
    "watch": ("docs/watch.md", "viprl watch runs/mine", "viprl watch runs/mine --once"),
    "report": ("docs/watch.md", "viprl report runs/mine", "viprl report runs/a runs/b --out compared.html"),
}


def end_of(command: str) -> str:
    """The text below the options of a command."""
    page, *examples = _ENDS[command]
    return "\n\n".join(["Examples:", *(f"  {example}" for example in examples), f"Documentation: {page}"])
