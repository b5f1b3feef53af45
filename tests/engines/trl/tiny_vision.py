"""A vision language model (LLaVA) so small that a training step takes milliseconds, its processor, and pictures."""

from __future__ import annotations

import numpy as np
import PIL.Image
import torch
import transformers
from datasets import Dataset
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor

import tiny

IMAGE = "<image>"
WORDS = (*tiny.LETTERS, "many", IMAGE)
IMAGE_TOKEN = len(tiny.SPECIAL) + len(WORDS) - 1
TEMPLATE = (
    "{% for m in messages %}{% if m['content'] is string %}{{ m['content'] }} {% else %}{% for part in m['content'] %}"
    "{{ '<image>' if part['type'] == 'image' else part['text'] }} {% endfor %}{% endif %}{% endfor %}"
)


def processor() -> LlavaProcessor:
    pillow = getattr(transformers, "CLIPImageProcessorPil", transformers.CLIPImageProcessor)  # without torchvision
    tokenizer = tiny.tokenizer(WORDS, additional_special_tokens=[IMAGE])
    sizes = {"size": {"height": 8, "width": 8}, "crop_size": {"height": 8, "width": 8}}
    return LlavaProcessor(
        pillow(**sizes), tokenizer, patch_size=4, vision_feature_select_strategy="full", chat_template=TEMPLATE,
        image_token=IMAGE, num_additional_image_tokens=1,
    )  # fmt: skip


def model() -> LlavaForConditionalGeneration:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    tokens = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None}
    made = LlavaForConditionalGeneration(
        LlavaConfig(
            vision_config=CLIPVisionConfig(**sizes, image_size=8, patch_size=4),
            text_config=LlamaConfig(**sizes, **tokens, vocab_size=IMAGE_TOKEN + 1, max_position_embeddings=64),
            image_token_index=IMAGE_TOKEN, vision_feature_select_strategy="full", vision_feature_layer=-1,
        )
    )  # fmt: skip
    made.generation_config.pad_token_id, made.generation_config.eos_token_id = 0, 1
    return made


def dataset() -> Dataset:
    """Eight times the same question about different pictures."""
    noise = np.random.default_rng(0)
    pictures = [PIL.Image.fromarray(noise.integers(0, 255, (8, 8, 3), dtype=np.uint8)) for _ in tiny.LETTERS]
    question = [{"role": "user", "content": "many"}]
    columns = {"prompt": [question] * 8, "images": [[one] for one in pictures], "solution": list(tiny.LETTERS)}
    return Dataset.from_dict(columns)
