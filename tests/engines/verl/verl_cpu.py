"""Lets verl run without an accelerator, through its own extension points: a platform (gloo), and a rollout backend that
calls a Hugging Face model in a Ray actor. Every process of a run imports it first (VERL_USE_EXTERNAL_MODULES). Slow."""

from __future__ import annotations

import asyncio
import os
import types
from collections import Counter
from contextlib import nullcontext
from typing import Any

import ray
import torch
import torch.distributed
from verl.plugin.platform.platform_base import PlatformBase
from verl.plugin.platform.platform_manager import PlatformRegistry, set_platform
from verl.workers.rollout import base
from verl.workers.rollout.replica import RolloutReplica, RolloutReplicaRegistry, TokenOutput


class _Device(types.ModuleType):
    """The part of torch.cuda that verl uses, for a CPU."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if hasattr(torch.cpu, name):
            return getattr(torch.cpu, name)
        known = {
            "mem_get_info": lambda *_: (1 << 34, 1 << 34),
            "get_device_properties": lambda *_: types.SimpleNamespace(total_memory=1 << 34, name="cpu"),
            "get_device_name": lambda *_: "cpu",
            "get_rng_state": torch.get_rng_state,
            "set_rng_state": torch.set_rng_state,
        }
        return known.get(name, lambda *_, **__: 0)


@PlatformRegistry.register(platform="cpu")
class CPU(PlatformBase):
    device_name, vendor_name, device_module = "cpu", "generic", _Device("cpu_device")
    manual_seed = manual_seed_all = staticmethod(torch.manual_seed)
    nvtx_range = staticmethod(lambda msg: nullcontext())
    ray_noset_envvars = staticmethod(list)

    def nothing(self, *_, **__):
        return None

    set_device = synchronize = set_allocator_settings = empty_cache = profiler_start = profiler_stop = cudart = nothing
    is_ipc_supported = nothing

    def is_available(self):
        return True

    def current_device(self):
        return torch.device("cpu")

    def device_count(self):
        return 1

    def get_device_capability(self, device_index=0):
        return None, None

    def communication_backend_name(self):
        # verl asks right before it starts "cpu:gloo,cpu:gloo", which torch refuses; it does not touch an existing group
        if "WORLD_SIZE" in os.environ and not torch.distributed.is_initialized():
            torch.distributed.init_process_group(
                "gloo",
                rank=int(os.environ["RANK"]),
                world_size=int(os.environ["WORLD_SIZE"]),
                init_method=os.environ.get("DIST_INIT_METHOD"),
            )
        return "gloo"

    def visible_devices_envvar(self):
        return "CUDA_VISIBLE_DEVICES"

    def ray_resource_name(self):
        return "GPU"  # logical slots: ray.init(num_gpus=ranks)


@ray.remote(num_cpus=0.1)
class Server:
    """Samples token by token. The k-th rollout of a prompt under one version of the weights has its own seed, so that a
    repeated step repeats its rollouts. It dies at the version of the weights in VIPRL_TEST_DIE."""

    def __init__(self, path: str, length: int) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        torch.set_num_threads(1)
        tokenizer = AutoTokenizer.from_pretrained(path)
        self.model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
        self.eos, self.call = tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<call>")
        self.answer = tokenizer.convert_tokens_to_ids("<answer>")
        self.tools = tokenizer.convert_tokens_to_ids("<tools>")
        self.length, self.version = length, 0
        self.asked: Counter[tuple[int, tuple[int, ...]]] = Counter()

    async def generate(self, request_id, *, prompt_ids, sampling_params, **_):
        if str(self.version) == os.environ.get("VIPRL_TEST_DIE"):
            os._exit(1)
        prompt = tuple(prompt_ids)
        self.asked[self.version, prompt] += 1
        seed = hash((self.version, prompt, self.asked[self.version, prompt])) % 2**32
        ids, logps = self._sample(prompt, sampling_params, torch.Generator().manual_seed(seed))
        return TokenOutput(
            token_ids=ids,
            log_probs=logps,
            stop_reason="completed",
            num_preempted=0,
            extra_fields={"global_steps": self.version},
        )

    @torch.no_grad()
    def _sample(self, prompt: tuple[int, ...], params: dict[str, Any], rng: torch.Generator):
        ids: list[int] = []
        logps: list[float] = []
        wants_tool = self.tools in prompt and self.answer not in prompt  # the first turn of a prompt with tools
        cache, x = None, torch.tensor([prompt])
        for _ in range(min(int(params.get("max_tokens") or self.length), 4 if wants_tool else self.length)):
            out = self.model(x, past_key_values=cache, use_cache=True)
            cache = out.past_key_values
            logp = torch.log_softmax(out.logits[0, -1].float() / (params.get("temperature") or 1.0), -1)
            token = self.call if wants_tool else int(torch.multinomial(logp.exp(), 1, generator=rng))
            ids.append(token)
            logps.append(float(logp[token]))
            if token in (self.eos, self.call):
                break
            x = torch.tensor([[token]])
        return ids, logps

    async def load(self, weights: dict[str, torch.Tensor], version: int) -> None:
        self.model.load_state_dict(weights, strict=False)
        self.version = version

    async def nothing(self, *_, **__):
        return None

    wake_up = sleep = clear_kv_cache = release_kv_cache = resume_kv_cache = nothing
    abort_all_requests = resume_generation = start_profile = stop_profile = nothing


class Replica(RolloutReplica):
    async def launch_servers(self):
        path = getattr(self.model_config, "path", None) or self.model_config["path"]
        server = Server.options(name=f"cpu_server_{self.replica_rank}").remote(path, self.config.response_length)
        self.servers, self._server_handle = [server], server
        self._server_address = f"cpu:{self.replica_rank}"


class Adapter(base.BaseRollout):
    """The side of the trainer: one server for all ranks, so rank 0 sends the weights."""

    async def nothing(self, *_, **__):
        pass

    resume = release = nothing

    async def update_weights(self, weights, wire_format="named_tensors", **kwargs):
        state = {name: tensor.detach().float().cpu().clone() for name, tensor in weights}  # all ranks gather
        if int(os.environ.get("RANK", 0)) == 0:
            await asyncio.wait_for(ray.get_actor("cpu_server_0").load.remote(state, kwargs.get("global_steps")), 60)


set_platform(CPU())
base._ROLLOUT_REGISTRY["cpu", "async"] = "verl_cpu.Adapter"
RolloutReplicaRegistry.register("cpu", lambda: Replica)
