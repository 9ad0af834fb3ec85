"""The bodies of `/v1/completions`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from bayling.engines.protocol import MAX_LOGPROBS
from bayling.serve.errors import ApiError
from bayling.serve.schema import MAX_CHOICES, SamplingFields, Stop, StreamOptions, Text, Usage

_NEW_TOKENS = 16
"""OpenAI's default."""
_MAX_PROMPTS = 256

Ids = Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(min_length=1)]


class CompletionRequest(SamplingFields):
    model: str
    prompt: (
        Text
        | Ids
        | Annotated[list[Text], Field(min_length=1, max_length=_MAX_PROMPTS)]
        | Annotated[list[Ids], Field(min_length=1, max_length=_MAX_PROMPTS)]
    )
    """One text or several, or token ids."""
    max_tokens: int | None = Field(None, ge=0)
    """0 only with `echo`: then the prompt is scored and nothing is added."""
    n: int | None = Field(None, ge=1, le=MAX_CHOICES)
    echo: bool = False
    logprobs: int | None = Field(None, ge=0, le=MAX_LOGPROBS)
    """How many of the likeliest tokens come with each token."""
    stream: bool = False
    stream_options: StreamOptions | None = None
    stop: Stop | list[Stop] | None = None

    def prompts(self) -> list[str | list[int]]:
        """The prompts, each by itself."""
        prompt = self.prompt
        if isinstance(prompt, str):
            return [prompt]
        if isinstance(prompt[0], int):
            return [prompt]
        return list(prompt)

    def stops(self) -> list[str]:
        return [self.stop] if isinstance(self.stop, str) else self.stop or []

    def new_tokens(self) -> int:
        """How many tokens may be added.

        Raises:
            ApiError: fields that contradict each other.
        """
        if self.stream_options is not None and not self.stream:
            raise ApiError(400, "stream_options needs stream=true", param="stream_options")
        wanted = self.token_limit()
        if wanted == 0 and not self.echo:
            raise ApiError(
                400,
                "max_tokens=0 leaves nothing to answer: it goes with echo=true only",
                param="max_tokens",
            )
        if self.stream and self.echo and (wanted == 0 or self.logprobs is not None):
            raise ApiError(
                400,
                "the scores of a prompt are not streamed: leave out stream, or echo",
                param="stream",
            )
        return _NEW_TOKENS if wanted is None else wanted

    def alternatives(self) -> int | None:
        return self.logprobs


class CompletionChoice(BaseModel):
    index: int
    text: str
    logprobs: dict[str, Any] | None
    finish_reason: str


class Completion(BaseModel):
    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage
