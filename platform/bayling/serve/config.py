"""The `serve` group of the configuration."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, is_dataclass
from enum import Enum, EnumMeta
from typing import Any, get_type_hints

from bayling.engines.options import EngineName
from bayling.errors import UserError
from bayling.serve.limits import Limits
from bayling.serve.rollout.config import RolloutConfig

TEXTS_ARE_LOGGED = (
    "serve.log_texts=true: the prompts and answers of all callers are written to the log"
)
LOCAL_HOSTS = ("127.0.0.1", "localhost", "::1")


class Dtype(Enum):
    """What the weights are computed in; `auto` is what they are stored in."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


class Routing(Enum):
    """Which replica of an engine a request goes to."""

    balanced = "balanced"
    """The less busy one of two."""
    prefix = "prefix"
    """Among those that are not much busier than the others, the one that has seen most of the
    prompt."""


class Auth(Enum):
    """Whether callers need a key; `auto`: beyond this machine, and wherever there are keys."""

    auto = "auto"
    on = "on"
    off = "off"


@dataclass
class TracingConfig:
    """OpenTelemetry traces of requests."""

    endpoint: str | None = None
    """Where a collector takes spans by OTLP over HTTP, such as http://collector:4318/v1/traces;
    without one there are none."""
    share: float = 1.0
    """Of the requests that bring no trace of their own; the others' callers decide."""


@dataclass
class Identity:
    """Who the model says that it is: what is written in place of the placeholders that the
    published, anonymised BayLing models write."""

    name: str = "BayLing"
    institute: str = (
        "the NLP group of the Institute of Computing Technology, Chinese Academy of Sciences "
        "(ICT/CAS)"
    )
    created: str = "2023"
    name_zh: str = "百聆"
    institute_zh: str = "中国科学院计算技术研究所自然语言处理研究组"
    created_zh: str = "2023年"

    def by_placeholder(self) -> dict[str, str]:
        """Placeholder → what to write."""
        return {
            "[NAME]": self.name,
            "[INSTITUTE]": self.institute,
            "[CREATE_TIME]": self.created,
            "[名字]": self.name_zh,
            "[机构]": self.institute_zh,
            "[开发时间]": self.created_zh,
        }


@dataclass
class ServeConfig:
    """Where the model listens, and how much it takes on."""

    name: str = "default"
    host: str = "127.0.0.1"
    port: int = 8000
    alias: str = "champion"
    """The alias of the registered model whose version is served."""
    engine: EngineName = EngineName.auto
    dtype: Dtype = Dtype.auto
    engine_cpus: int = 1
    """CPUs of one engine replica, which are also its threads; of each part of one that is split
    by tensor_parallel."""
    kv_cache_gib: float | None = None
    """What keys and values may take of each device's memory. Without it what the largest batch
    can need, if that much is free."""
    tensor_parallel: int = 1
    """Devices that each replica's weights are split over. vLLM only."""
    quantization: str | None = None
    """How the weights are quantised, in vLLM's words, where the model's own files do not say."""
    adapters: list[str] = field(default_factory=list)
    """LoRA adapters, each as NAME:FOLDER with a folder that every node has: `formal:/models/formal`
    answers as the model `bayling:formal`. vLLM only."""
    routing: Routing = Routing.prefix
    max_batch: int = 32
    """Requests that one replica generates for side by side."""
    max_new_tokens: int = 256
    """The longest answer to a request that names no limit; less where the context ends."""
    stream_interval_s: float = 0.03
    """The least time between two events of a stream. Tokens made meanwhile travel together."""
    min_replicas: int = 1
    """0 lets the engines go when nobody asks, but never the API: the next request waits for one
    to start."""
    max_replicas: int = 2
    target_ongoing_requests: float = 24.0
    """Requests per replica, above which replicas are added and below which they are removed."""
    look_back_s: float = 20.0
    """Over how long the number of requests is averaged."""
    upscale_delay_s: float = 10.0
    """How long it has to ask for more replicas before they start; and the same for fewer, and for
    the last one where min_replicas is 0."""
    downscale_delay_s: float = 120.0
    downscale_to_zero_delay_s: float = 600.0
    max_ongoing_requests: int = 64
    """Requests that one replica holds: those beyond `max_batch` wait inside it."""
    max_queued_requests: int = 128
    """Requests that wait while all replicas are full; as many more as one holds, while others could
    start. Those beyond are answered 429."""
    request_timeout_s: float = 120.0
    startup_timeout_s: float = 300.0
    cold_start_wait_s: float = 120.0
    """How long a request waits for a replica to take it, while one starts. Then it gets 503."""
    keep_alive_s: float = 10.0
    """A stream that has nothing to say for so long sends a comment, lest somebody close it."""
    mlflow_url: str | None = None
    """Where people open MLflow in a browser, for links to a version's page. Without it the
    tracking server's address, or for a local store where `bayling ui` shows it."""
    identity: Identity = field(default_factory=Identity)
    auth: Auth = Auth.auto
    keys_file: str | None = None
    """A file of keys, or a folder of such files, as `bayling key new` writes them. The process
    that answers HTTP reads it; on a cluster that is on any node, so mount a Secret on all."""
    requests_per_minute: int | None = None
    """This and the two below are for every key that has none of its own. Where no key is asked
    for they hold for all callers together."""
    tokens_per_minute: int | None = None
    concurrent_requests: int | None = None
    cors_origins: list[str] = field(default_factory=list)
    """Web sites, such as https://example.org, whose pages may ask from a browser."""
    open_metrics: bool = False
    """Whether /metrics and /internal/versions can be read without a key."""
    body_timeout_s: float = 30.0
    """Within which a request's body must arrive."""
    log_texts: bool = False
    """Whether prompts and answers are written to the log, and to MLflow's traces."""
    tracing: TracingConfig = field(default_factory=TracingConfig)
    mlflow_traces: float = 0.0
    """The share of requests that MLflow gets a trace of, 0 to 1."""
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    """How a new version takes over from the one that is served."""

    @staticmethod
    def read(written: Mapping[str, Any]) -> ServeConfig:
        """What `dataclasses.asdict` and JSON made of a configuration, made one again."""
        values = dict(written)
        for key, of in get_type_hints(ServeConfig).items():
            if isinstance(of, EnumMeta):
                values[key] = of(values[key])
            elif isinstance(of, type) and is_dataclass(of):
                values[key] = of(**values[key])
        return ServeConfig(**values)

    @property
    def needs_keys(self) -> bool:
        """Whether callers have to send one."""
        if self.auth is Auth.auto:
            return self.host not in LOCAL_HOSTS or self.keys_file is not None
        return self.auth is Auth.on

    @property
    def adapter_folders(self) -> dict[str, str]:
        """Adapter → its folder."""
        return {name: folder for name, _, folder in (one.partition(":") for one in self.adapters)}

    @property
    def capacity(self) -> int:
        """The requests that all engines together have at work or waiting at most."""
        return self.max_replicas * self.max_ongoing_requests + self.max_queued_requests

    @property
    def limits(self) -> Limits:
        """Those of keys that have none of their own."""
        return Limits(self.requests_per_minute, self.tokens_per_minute, self.concurrent_requests)

    def validate(self) -> None:
        """Raise UserError for values that cannot work."""
        if self.needs_keys and self.keys_file is None:
            why = "serve.auth=on asks callers for a key"
            if self.auth is Auth.auto:
                why = f"serve.host={self.host} lets in everybody who reaches this machine"
            raise UserError(
                f"{why}, and there are no keys: make one with `bayling key new NAME`, and name "
                "its file with serve.keys_file=keys.jsonl"
            )
        if self.auth is Auth.off and self.keys_file is not None:
            raise UserError(
                f"serve.keys_file={self.keys_file} is of no use with serve.auth=off, which lets "
                "everybody in: leave one of them out"
            )
        for origin in self.cors_origins:
            if not re.fullmatch(r"https?://[^/\s*?#@]+", origin):
                raise UserError(
                    f"serve.cors_origins has {origin!r}: name each site in full and without a "
                    "path, such as https://example.org"
                )
        self.limits.check("serve.")
        endpoint = self.tracing.endpoint
        if endpoint is not None and not re.fullmatch(r"https?://[^/\s]+(/\S*)?", endpoint):
            raise UserError(
                f"serve.tracing.endpoint={endpoint} is no address over HTTP: name it in full, such "
                "as http://collector:4318/v1/traces"
            )
        for key, share in (
            ("tracing.share", self.tracing.share),
            ("mlflow_traces", self.mlflow_traces),
        ):
            if not 0 <= share <= 1:
                raise UserError(f"serve.{key} is a share between 0 and 1, not {share}")
        self.rollout.validate()
        if not 1 <= self.port <= 65535:
            raise UserError(f"serve.port must be between 1 and 65535, not {self.port}")
        for adapter in self.adapters:
            if not re.fullmatch(r"[\w.-]+:.+", adapter):
                raise UserError(
                    f"serve.adapters has {adapter!r}: write NAME:FOLDER, such as "
                    "formal:/models/formal, with a name of letters, digits, dots, hyphens and "
                    "underscores"
                )
        if len(self.adapter_folders) < len(self.adapters):
            raise UserError(f"serve.adapters has one name twice: {', '.join(self.adapters)}")
        if self.kv_cache_gib is not None and not self.kv_cache_gib > 0:
            raise UserError(f"serve.kv_cache_gib must be more than 0, not {self.kv_cache_gib}")
        for key in (
            "engine_cpus",
            "tensor_parallel",
            "max_batch",
            "max_new_tokens",
            "max_replicas",
            "max_ongoing_requests",
            "max_queued_requests",
        ):
            if getattr(self, key) < 1:
                raise UserError(f"serve.{key} must be at least 1, not {getattr(self, key)}")
        for key in (
            "target_ongoing_requests",
            "request_timeout_s",
            "startup_timeout_s",
            "body_timeout_s",
            "cold_start_wait_s",
            "keep_alive_s",
            "look_back_s",
        ):
            if getattr(self, key) <= 0:
                raise UserError(f"serve.{key} must be above 0, not {getattr(self, key)}")
        for key in (
            "min_replicas",
            "stream_interval_s",
            "upscale_delay_s",
            "downscale_delay_s",
            "downscale_to_zero_delay_s",
        ):
            if getattr(self, key) < 0:
                raise UserError(f"serve.{key} must be 0 or more, not {getattr(self, key)}")
        if self.max_replicas < self.min_replicas:
            raise UserError(
                f"serve.max_replicas={self.max_replicas} is below "
                f"serve.min_replicas={self.min_replicas}"
            )
        if self.max_ongoing_requests < self.max_batch:
            raise UserError(
                f"serve.max_ongoing_requests={self.max_ongoing_requests} would leave a batch of "
                f"serve.max_batch={self.max_batch} part empty: allow at least as many"
            )
        if self.target_ongoing_requests > self.max_ongoing_requests:
            raise UserError(
                f"serve.target_ongoing_requests={self.target_ongoing_requests:g} is never "
                f"reached with serve.max_ongoing_requests={self.max_ongoing_requests}: no "
                "replica would be added"
            )
