"""The keys `evaluate.chat.*`."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

from bayling.errors import UserError


@dataclass
class JudgeConfig:
    """A model behind an OpenAI-compatible API."""

    url: str | None = None
    """Its base, as OpenAI's client takes it: https://api.openai.com/v1, http://judge:8000/v1.
    `/v1` goes without saying where there is no path."""
    model: str | None = None
    key_variable: str = "BAYLING_JUDGE_API_KEY"
    """The environment variable with the key. Where it is not set, none is sent."""
    max_tokens: int = 1024
    """Of a judgement: its reasons and its scores."""
    concurrency: int = 8
    """Requests at a time."""
    timeout_s: float = 120.0
    """For one whole answer."""
    retries: int = 5
    """After 429, 5xx, a time-out or a broken connection, with growing pauses in between."""
    price_per_million_prompt_tokens: float | None = None
    """In any currency; without both prices no cost is named, only tokens."""
    price_per_million_completion_tokens: float | None = None

    def validate(self) -> None:
        key = "evaluate.chat.judge"
        if self.url is not None:
            try:
                parts = urlsplit(self.url)
                _ = parts.port  # is parsed when it is asked for
            except ValueError:
                parts = urlsplit("")
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise UserError(f"{key}.url={self.url!r} is no address: write http(s)://HOST/v1")
            if parts.username or parts.password or parts.query:
                raise UserError(
                    f"{key}.url must hold no key, as it is written down: put it into an "
                    f"environment variable and name that in {key}.key_variable"
                )
        for name in ("max_tokens", "concurrency"):
            if getattr(self, name) < 1:
                raise UserError(f"{key}.{name} must be at least 1, not {getattr(self, name)}")
        if self.timeout_s <= 0:
            raise UserError(f"{key}.timeout_s must be above 0, not {self.timeout_s:g}")
        if self.retries < 0:
            raise UserError(f"{key}.retries must be at least 0, not {self.retries}")
        for name in ("price_per_million_prompt_tokens", "price_per_million_completion_tokens"):
            price = getattr(self, name)
            if price is not None and price < 0:
                raise UserError(f"{key}.{name} must be at least 0, not {price:g}")

    def decides(self) -> JudgeConfig:
        """The same without what says how it is asked, and not what: no judgement is paid for twice
        because of a shorter time-out."""
        carried_out = ("key_variable", "concurrency", "timeout_s", "retries")
        usual = JudgeConfig()
        return replace(self, **{name: getattr(usual, name) for name in carried_out})

    @property
    def endpoint(self) -> str:
        """The address that requests go to."""
        base = (self.url or "").rstrip("/")
        path = urlsplit(base).path
        return f"{base}{'' if path else '/v1'}/chat/completions"


@dataclass
class ChatConfig:
    """Which questions are asked, how they are answered, and who compares the answers."""

    files: list[str] = field(default_factory=list)
    """Questions as BayLing-80, vicuna-80 and MT-bench have them: JSON lines with `question_id`, and
    `text` or `turns`."""
    temperature: float = 0.7
    """As published; 0 is greedy."""
    max_new_tokens: int = 1024
    """Of one answer, as published."""
    opponent: list[str] = field(default_factory=list)
    """Files of published answers to compare with, instead of with the baseline."""
    opponent_system: str | None = None
    """Whose answers to take from files that have several systems'."""
    judge: JudgeConfig = field(default_factory=JudgeConfig)

    def validate(self) -> None:
        self.judge.validate()
        if self.temperature < 0:
            raise UserError(
                f"evaluate.chat.temperature must be at least 0, not {self.temperature:g}"
            )
        if self.max_new_tokens < 1:
            raise UserError(
                f"evaluate.chat.max_new_tokens must be at least 1, not {self.max_new_tokens}"
            )
        if self.opponent_system is not None and not self.opponent:
            raise UserError(
                f"evaluate.chat.opponent_system={self.opponent_system} chooses a system of "
                "evaluate.chat.opponent: name its files too"
            )

    def require(self) -> None:
        """Refuse what the suite cannot do without.

        Raises:
            UserError: there are no questions, or there is no judge.
        """
        missing = [
            name
            for name, value in (
                ("files", self.files),
                ("judge.url", self.judge.url),
                ("judge.model", self.judge.model),
            )
            if not value
        ]
        if missing:
            named = " and ".join(f"evaluate.chat.{name}" for name in missing)
            raise UserError(
                f"the suite chat needs {named}: files of questions, and a judge behind an "
                "OpenAI-compatible address"
            )
