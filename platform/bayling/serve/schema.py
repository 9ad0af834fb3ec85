"""The bodies of requests and answers. What a request says is honoured or refused, never ignored."""

from __future__ import annotations

import difflib
import json
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from bayling.engines.protocol import MAX_LOGPROBS
from bayling.serve.errors import ApiError
from bayling.templates import Message

_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "logit_bias": ({},),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "reasoning_effort": ("none",),
    "verbosity": (),
    "web_search_options": (),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "metadata": ({},),
    "best_of": (1,),
    "suffix": ("",),
}
"""OpenAI's fields that change an answer in ways this server does not offer → the values that
ask for nothing. `null` always does."""


def _writable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("the text contains half of a surrogate pair, which no UTF-8 has") from None
    return text


MAX_CHOICES = 16
"""The most answers to one prompt."""

Text = Annotated[str, AfterValidator(_writable)]
Stop = Annotated[Text, Field(min_length=1, max_length=200)]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class TextPart(_Strict):
    type: Literal["text"]
    text: Text


class ChatMessage(_Strict):
    role: Literal["system", "developer", "user", "assistant"]
    content: Text | list[TextPart]

    def message(self) -> Message:
        content = self.content
        if not isinstance(content, str):
            content = "".join(part.text for part in content)
        return Message("system" if self.role == "developer" else self.role, content)


class StreamOptions(_Strict):
    include_usage: bool = False


class SamplingFields(BaseModel):
    """How to choose tokens; the same in every request that generates."""

    # Fields beyond these are told apart by `refuse_unknown`, with a better reason than pydantic's.
    model_config = ConfigDict(strict=True, extra="allow")

    model: str | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    """Without one 0: a translation system should give the same answer twice."""
    top_p: float | None = Field(None, gt=0, le=1)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    user: str | None = None
    """Who asks. It changes no answer."""

    def refuse_unknown(self) -> None:
        """Raise ApiError for a field that this server does not know or cannot honour."""
        for name, value in (self.model_extra or {}).items():
            if name not in _NEUTRAL:
                near = difflib.get_close_matches(name, type(self).model_fields, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise ApiError(
                    400, f"unknown field {name!r}{hint}", param=name, code="unknown_parameter"
                )
            neutral = _NEUTRAL[name]
            # By type as well: for Python, True is 1.
            if value is not None and not any(
                value == one and isinstance(value, bool) == isinstance(one, bool) for one in neutral
            ):
                raise ApiError(
                    400,
                    f"this server does not support {name!r}: leave it out",
                    param=name,
                    code="unsupported_parameter",
                )

    def alternatives(self) -> int | None:
        """How many of the likeliest tokens come with each; None for no log-probabilities."""
        return None

    def schema_of_answer(self) -> str | None:
        """The JSON schema that the answer has to satisfy, as JSON."""
        return None

    def token_limit(self) -> int | None:
        """The tokens that the answer may have; None where the request does not say."""
        limits = {self.max_tokens, self.max_completion_tokens} - {None}
        if len(limits) > 1:
            raise ApiError(
                400,
                f"max_tokens={self.max_tokens} and max_completion_tokens="
                f"{self.max_completion_tokens} contradict each other: give one",
                param="max_tokens",
            )
        return limits.pop() if limits else None


class NamedSchema(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    name: str = "answer"
    description: str | None = None
    # `schema` is what pydantic calls a method of its own.
    schema_: dict[str, Any] = Field(alias="schema")
    strict: bool | None = None


class ResponseFormat(_Strict):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: NamedSchema | None = None


class ChatRequest(SamplingFields):
    model: str
    messages: list[ChatMessage] = Field(min_length=1)
    n: int | None = Field(None, ge=1, le=MAX_CHOICES)
    """How many answers. Each is a request of its own to the engine."""
    stream: bool = False
    stream_options: StreamOptions | None = None
    stop: Stop | list[Stop] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=MAX_LOGPROBS)
    response_format: ResponseFormat | None = None
    """JSON of a form, where the engine can hold an answer to it."""

    def stops(self) -> list[str]:
        return [self.stop] if isinstance(self.stop, str) else self.stop or []

    def alternatives(self) -> int | None:
        if not self.logprobs:
            if self.top_logprobs:
                raise ApiError(400, "top_logprobs needs logprobs=true", param="top_logprobs")
            return None
        return self.top_logprobs or 0

    def schema_of_answer(self) -> str | None:
        wanted = self.response_format
        if wanted is None or wanted.type == "text":
            return None
        if wanted.type == "json_object":
            return json.dumps({"type": "object"})
        if wanted.json_schema is None:
            raise ApiError(
                400,
                "response_format.type=json_schema needs response_format.json_schema",
                param="response_format",
            )
        return json.dumps(wanted.json_schema.schema_)


class PromptTokensDetails(BaseModel):
    cached_tokens: int
    """Those that an engine had read before, as the beginning of an earlier request."""


class Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails


def usage(prompt_tokens: int, completion_tokens: int, cached_tokens: int) -> Usage:
    return Usage(
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        total_tokens=prompt_tokens + completion_tokens,
        prompt_tokens_details=PromptTokensDetails(cached_tokens=cached_tokens),
    )


class AnswerMessage(BaseModel):
    role: Literal["assistant"] = "assistant"
    content: str


class Choice(BaseModel):
    index: int
    message: AnswerMessage
    logprobs: dict[str, Any] | None
    finish_reason: str


class ChatCompletion(BaseModel):
    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage


class ModelCard(BaseModel):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["bayling"] = "bayling"
    version: str
    context_length: int
    languages: list[str]
    page: str | None = None
    """Where the version can be looked at: its page in MLflow."""
    parent: str | None = None
    """Of an adapter the model that it goes on top of."""


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[ModelCard]


class Status(BaseModel):
    status: Literal["ok"] = "ok"
