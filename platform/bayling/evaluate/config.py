"""The `evaluate` group of the configuration."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from bayling import languages
from bayling.engines.options import EngineName
from bayling.errors import UserError
from bayling.evaluate.chat.config import ChatConfig
from bayling.evaluate.decoding import Decoding


@dataclass
class TranslationConfig:
    """Which files, and which directions of them."""

    files: list[str] = field(default_factory=list)
    """Paths, or patterns such as `flores/devtest/*.devtest`. The language is what a file's name
    begins or ends with: `eng.devtest`, `newstest.zh`."""
    directions: list[str] = field(default_factory=list)
    """Such as `en-zh`; all of them if none are named."""
    limit: int | None = None
    """At most as many sentences of each direction, the first ones."""
    metrics: list[str] = field(default_factory=lambda: ["ter"])
    """Beside BLEU and chrF++: `ter`."""
    comet: str | None = None
    """The folder of a COMET model."""
    tokenizers: dict[str, str] = field(default_factory=dict)
    """Target language → sacreBLEU tokenizer, such as `ja: ja-mecab`."""

    def validate(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise UserError(f"evaluate.translation.limit must be at least 1, not {self.limit}")
        if unknown := set(self.metrics) - {"ter"}:
            raise UserError(
                f"evaluate.translation.metrics knows ter, not {', '.join(sorted(unknown))}"
            )
        self.tokenizers = {languages.parse(tag): name for tag, name in self.tokenizers.items()}


@dataclass
class ConstrainedConfig:
    """Sentences with words that their translations have to have."""

    files: list[str] = field(default_factory=list)
    """JSON lines of `src`, `tgt` and `constraint`, all into one language."""
    target_lang: str | None = None
    """Told from the references unless it is named."""


@dataclass
class FilesConfig:
    """Conversations in files: `messages`, and `requirements` of the user's."""

    files: list[str] = field(default_factory=list)


@dataclass
class KnowledgeConfig:
    """Exams in AGIEval's format."""

    files: list[str] = field(default_factory=list)
    """Paths or patterns; each file is an exam."""
    max_new_tokens: int = 512
    """As in BayLing's published evaluation, where answers may explain."""

    def validate(self) -> None:
        if self.max_new_tokens < 1:
            raise UserError(
                f"evaluate.knowledge.max_new_tokens must be at least 1, not {self.max_new_tokens}"
            )


@dataclass
class HarnessConfig:
    """Tasks of lm-evaluation-harness."""

    tasks: list[str] = field(default_factory=list)
    """Names of tasks, groups or tags that the harness or `include_path` has, or YAML files."""
    include_path: str | None = None
    """A folder of tasks of your own. Python code that their YAML files name is run."""
    shots: int | None = None
    """Solved examples before each question; what the task says without it."""
    limit: int | None = None
    """Questions of each task, the first ones; all without it."""
    apply_chat_template: bool = False
    """Whether questions are asked as a user's turn. Scores differ, with and without."""
    tokenizer: str | None = None
    """The folder of the tokenizer of a server's model; not needed for a model in a folder."""

    def validate(self) -> None:
        if self.shots is not None and self.shots < 0:
            raise UserError(f"evaluate.harness.shots must be 0 or more, not {self.shots}")
        if self.limit is not None and self.limit < 1:
            raise UserError(f"evaluate.harness.limit must be at least 1, not {self.limit}")
        # Workers have another working directory.
        self.tasks = [_absolute(task) if _is_yaml(task) else task for task in self.tasks]
        self.include_path = self.include_path and _absolute(self.include_path)
        self.tokenizer = self.tokenizer and _absolute(self.tokenizer)

    @property
    def own_files(self) -> list[str]:
        """The files of tasks of your own, data beside them included."""
        folder = sorted(Path(self.include_path).rglob("*")) if self.include_path else []
        named = [Path(task) for task in self.tasks if _is_yaml(task)]
        return [
            str(path)
            for path in [*folder, *named]
            if path.is_file() and "__pycache__" not in path.parts
        ]


@dataclass
class EvaluateConfig:
    """Which suites a model is put through, and how it is asked."""

    name: str = "heldout"
    suites: list[str] = field(default_factory=lambda: ["heldout", "interactive"])
    """Keys of `evaluate.suites.SUITES`."""
    model: str | None = None
    """What is evaluated: the pipeline's own model unless it is named. A folder, `models:/NAME/3` or
    `models:/NAME@champion`, or the http address of an OpenAI-compatible server, with the model's
    name after a `#` where it serves several."""
    against: str | None = None
    """What that is compared with, named likewise; the champion unless it is named."""
    engine: EngineName = EngineName.auto
    max_new_tokens: int = 64
    beams: int = 1
    """More than one: beam search, by plain batched generation. BayLing's published translations
    were made with 5."""
    max_batch: int = 64
    """Prompts that one engine answers at once; bounds its memory."""
    shard_size: int | None = None
    """Questions that are with the engines at a time, all of them together, and so the most that
    are asked again after an interruption; unless it is set, twice as many as they answer side by
    side."""
    endpoint_concurrency: int = 16
    """Requests to a server at a time."""
    endpoint_key_variable: str = "BAYLING_API_KEY"
    """The environment variable with the server's key."""
    translation: TranslationConfig = field(default_factory=TranslationConfig)
    constrained: ConstrainedConfig = field(default_factory=ConstrainedConfig)
    interactive: FilesConfig = field(default_factory=FilesConfig)
    """Without files: the conversations that the data stage kept back."""
    safety: FilesConfig = field(default_factory=FilesConfig)
    knowledge: KnowledgeConfig = field(default_factory=KnowledgeConfig)
    harness: HarnessConfig = field(default_factory=HarnessConfig)
    chat: ChatConfig = field(default_factory=ChatConfig)

    def validate(self) -> None:
        for key in (
            "max_new_tokens",
            "max_batch",
            "beams",
            "endpoint_concurrency",
        ):
            if getattr(self, key) < 1:
                raise UserError(f"evaluate.{key} must be at least 1, not {getattr(self, key)}")
        if self.shard_size is not None and self.shard_size < 1:
            raise UserError(f"evaluate.shard_size must be at least 1, not {self.shard_size}")
        if not self.suites:
            raise UserError("evaluate.suites names no suite: heldout, interactive, …")
        if repeated := {name for name in self.suites if self.suites.count(name) > 1}:
            raise UserError(f"evaluate.suites names {', '.join(sorted(repeated))} twice")
        self.translation.validate()
        self.knowledge.validate()
        self.harness.validate()
        self.chat.validate()
        if "chat" in self.suites:
            self.chat.require()

    def decides(self) -> EvaluateConfig:
        """What decides the scores."""
        return replace(self, chat=replace(self.chat, judge=self.chat.judge.decides()))

    @property
    def asks_of_data(self) -> bool:
        """Whether a suite's questions are what the data stage kept back."""
        own = "interactive" in self.suites and not self.interactive.files
        return own or "heldout" in self.suites

    @property
    def all_files(self) -> list[str]:
        """Paths and patterns of every suite that is asked."""
        groups = {
            "translation": self.translation.files,
            "constrained": self.constrained.files,
            "interactive": self.interactive.files,
            "safety": self.safety.files,
            "knowledge": self.knowledge.files,
            "harness": self.harness.own_files,
            "chat": [*self.chat.files, *self.chat.opponent],
        }
        return [path for name in self.suites for path in groups.get(name, [])]

    @property
    def decoding(self) -> Decoding:
        """How translations are made."""
        return Decoding(self.max_new_tokens, beams=self.beams)


def _is_yaml(task: str) -> bool:
    return task.endswith((".yaml", ".yml"))


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().resolve())
