"""What vLLM is told: its environment, its engine's arguments, and each request's parameters."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bayling import accelerators
from bayling.engines.adapters import check_adapters, largest_rank
from bayling.engines.folder import check_model_folder
from bayling.engines.memory import bytes_per_token, check_room
from bayling.engines.options import EngineOptions
from bayling.engines.protocol import MAX_LOGPROBS, Sampling
from bayling.engines.vllm_process import OWNER
from bayling.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig
    from vllm import SamplingParams
    from vllm.engine.arg_utils import AsyncEngineArgs

_ENVIRONMENT = {
    # It would tell its makers about this machine.
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
    # Forked, it would inherit the locks of this process's threads.
    "VLLM_WORKER_MULTIPROCESSING_METHOD": "spawn",
    # The last token of a full context is generated and never read: see `engine_args`.
    "VLLM_ALLOW_LONG_MAX_MODEL_LEN": "1",
    # Two replicas on a machine would bind their threads to the same cores.
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
}

_OF_FREE_MEMORY = 0.4
_BLOCK = 128
"""Tokens of a block of keys and values on a CPU; on others it is smaller."""


def set_environment(options: EngineOptions) -> None:
    """What vLLM and its processes read at import; what is set already stays. Call it first."""
    for key, value in _ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    os.environ[OWNER] = str(os.getpid())
    if options.threads is not None:
        os.environ["OMP_NUM_THREADS"] = str(options.threads)


def built_for() -> str:
    """The device that the installed vLLM computes on: cpu, cuda, or another one's name."""
    set_environment(EngineOptions())
    from vllm.platforms import current_platform

    return str(current_platform.device_type)


def engine_args(
    folder: Path, config: PreTrainedConfig, context_length: int, options: EngineOptions
) -> AsyncEngineArgs:
    """The arguments of vLLM's engine for the model in a folder.

    Args:
        config: the model's.
        context_length: prompt and answer together.

    Raises:
        UserError: an adapter that cannot be served.
    """
    check_adapters(options.adapters)
    from vllm.engine.arg_utils import AsyncEngineArgs

    cpu = options.device == "cpu"
    dtype = options.dtype
    if cpu and dtype == "auto" and not accelerators.cpu_multiplies_bf16():
        dtype = "float32"
    adapters: dict[str, Any] = {}
    if options.adapters:
        # On a CPU requests without an adapter get the one in the last place: it is left empty.
        places = len(options.adapters) + (1 if cpu else 0)
        adapters = {
            "enable_lora": True,
            "max_loras": places,
            "max_cpu_loras": places,
            "max_lora_rank": largest_rank(options.adapters),
        }
    return AsyncEngineArgs(
        model=str(folder),
        trust_remote_code=False,
        load_format="safetensors",
        use_tqdm_on_load=False,
        # The folder's own defaults for sampling would go over what requests leave out.
        generation_config="vllm",
        dtype=dtype,
        # A text to score may be as long as the context, and vLLM generates one token after it.
        max_model_len=context_length + 1,
        kv_cache_memory_bytes=cache_bytes(config, context_length, options),
        max_num_seqs=options.max_batch,
        max_logprobs=MAX_LOGPROBS,
        tensor_parallel_size=options.tensor_parallel,
        distributed_executor_backend="mp" if options.tensor_parallel > 1 else "uni",
        quantization=options.quantization,
        # On a CPU compiling takes minutes and a C++ compiler, and gains little.
        enforce_eager=cpu,
        disable_log_stats=False,
        seed=0,
        **adapters,
    )


def read_config(folder: Path) -> PreTrainedConfig:
    """The text model's configuration.

    Raises:
        UserError: the folder has none that can be read.
    """
    from transformers import AutoConfig

    check_model_folder(folder)
    try:
        config = AutoConfig.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{folder / 'config.json'} cannot be read: {reason}") from None
    return config.get_text_config()


def cache_bytes(
    config: PreTrainedConfig, context_length: int, options: EngineOptions
) -> int | None:
    """What keys and values are to take of each device's memory; None: what vLLM finds free there.

    On a CPU vLLM would fill half of a memory that it shares with other replicas, and with
    everything else on the machine.

    Raises:
        UserError: not even one request of the full context fits.
    """
    # In the widest type, if it is not known yet.
    each = bytes_per_token(config, 2 if options.dtype in ("bfloat16", "float16") else 4)
    gib = options.kv_cache_gib
    if gib is None and options.device != "cpu":
        return None
    if gib is not None:
        room = int(gib * 2**30) * options.tensor_parallel
    else:
        import psutil

        # Whole blocks, and one of them is vLLM's own.
        full = options.max_batch * (context_length + _BLOCK) + _BLOCK
        room = min(full * each, int(_OF_FREE_MEMORY * psutil.virtual_memory().available))
    check_room(each, context_length, room, gib)
    return room // options.tensor_parallel


def sampling_params(sampling: Sampling, whole: bool) -> SamplingParams:
    """A request's parameters.

    Args:
        whole: whether the answer is wanted in one piece.
    """
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

    structure = sampling.json_schema
    return SamplingParams(
        max_tokens=sampling.max_new_tokens,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        # It takes no negative ones, and -1 for none at all.
        seed=None if sampling.seed is None else sampling.seed % 2**63,
        stop_token_ids=list(sampling.stop_ids),
        # Only what the request names ends its answer.
        ignore_eos=True,
        logprobs=sampling.logprobs,
        structured_outputs=None if structure is None else StructuredOutputsParams(json=structure),
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY if whole else RequestOutputKind.DELTA,
        skip_clone=True,
    )


def scoring_params(top: int) -> SamplingParams:
    """The parameters of a text to score."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        max_tokens=1,
        temperature=0.0,
        prompt_logprobs=top,
        ignore_eos=True,
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )
