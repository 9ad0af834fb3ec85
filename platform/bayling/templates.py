"""Conversations ⇄ text ⇄ token ids, with the loss mask: the one truth for data, training, serving.

A conversation is rendered to text as a whole and tokenised once. What the model is trained
to write follows from character offsets: every assistant turn with its end token. Because the
server renders and tokenises a history the same way, it feeds the model exactly the ids that
training showed it.

The text of `bayling` and `bayling3` is that of the published models (github.com/ictnlp/BayLing).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from bayling.errors import UserError
from bayling.requirements import Requirement

if TYPE_CHECKING:
    from tokenizers import Encoding
    from transformers import PreTrainedTokenizerFast


TASKS = ("translate", "constrained", "interactive", "general")


class TemplateError(UserError):
    """A conversation or a tokenizer that a template cannot take."""


@dataclass(frozen=True)
class Message:
    role: str
    """system (first only), user or assistant."""
    content: str
    requirements: tuple[Requirement, ...] = ()
    """On a user turn: what the answer to it must satisfy."""


@dataclass(frozen=True)
class Conversation:
    """The row that the data stage makes and the evaluate stage asks."""

    id: str
    messages: tuple[Message, ...]
    task: str
    """One of `TASKS`."""
    source_lang: str
    target_lang: str
    origin: str


@dataclass(frozen=True)
class Encoded:
    """Token ids of a conversation and, for each, whether the model is trained to write it."""

    ids: list[int]
    supervised: list[bool]


@dataclass(frozen=True)
class Rendered:
    text: str
    answers: list[tuple[int, int]] = field(default_factory=list)
    """Start and end in characters of each assistant turn, its end token included."""


@dataclass(frozen=True)
class Template:
    """How a conversation is written down for a model.

    A turn is `before[role] + content + after[role]`; `between` stands between an answer and
    the next user turn. `answer_prefix` is what the model sees before it starts to write.
    """

    name: str
    system: str | None
    """The system text when the conversation brings none; None for no system turn."""
    before: dict[str, str]
    after: dict[str, str]
    between: str
    end_token: str
    bos_token: str | None
    control_tokens: tuple[str, ...]
    """Tokens with a meaning of their own; text that contains them is refused."""
    stop_tokens: tuple[str, ...]
    strip: bool = False

    def render(self, messages: Sequence[Message]) -> Rendered:
        """The conversation as text.

        Ends after the last answer, or, when the last turn is the user's, where the model
        starts to write.

        Raises:
            TemplateError: the turns are out of order, or a message contains a control token.
        """
        check_turns(messages)
        pieces: list[str] = []
        answers: list[tuple[int, int]] = []
        if messages[0].role != "system" and self.system is not None:
            pieces.append(self.before["system"] + self.system + self.after["system"])
        length = sum(map(len, pieces))
        for left, message in zip(range(len(messages) - 1, -1, -1), messages, strict=True):
            self.refuse_control_tokens(message.content)
            before = self.before[message.role]
            turn = before + (message.content.strip() if self.strip else message.content)
            if message.role == "assistant":
                turn += self.end_token
                answers.append((length + len(before), length + len(turn)))
                if left:
                    turn += self.between
            else:
                turn += self.after[message.role]
            pieces.append(turn)
            length += len(turn)
        if messages[-1].role == "user":
            pieces.append(self.before["assistant"])
        return Rendered("".join(pieces), answers)

    def refuse_control_tokens(self, content: str) -> None:
        for token in self.control_tokens:
            if token in content:
                raise TemplateError(
                    f"a message contains {token!r}, which template {self.name!r} uses to mark "
                    "turns: take it out of the text"
                )

    def phrases(self) -> list[str]:
        """The template's own words, line by line, without control tokens."""
        texts = [self.system or "", *self.before.values(), *self.after.values(), self.between]
        for token in self.control_tokens:
            texts = [part for text in texts for part in text.split(token)]
        lines = [line.strip() for text in texts for line in text.split("\n")]
        return [line for line in dict.fromkeys(lines) if len(line) > 1]

    def chat_template(self) -> str:
        """The same as Jinja, in the form that transformers and vLLM read from a tokenizer.

        It starts with the BOS token, because they tokenise its text without special tokens.
        """
        content = "message['content'] | trim" if self.strip else "message['content']"
        bos = "{{ bos_token }}" if self.bos_token else ""
        default = ""
        if self.system is not None:
            text = self.before["system"] + self.system + self.after["system"]
            default = (
                "{% if messages[0]['role'] != 'system' %}{{ " + _quote(text) + " }}{% endif %}"
            )

        def turn(role: str, after: str) -> str:
            return f"{{{{ {_quote(self.before[role])} + ({content}) + {_quote(after)} }}}}"

        body = (
            "{% for message in messages %}"
            "{% if message['role'] == 'assistant' %}"
            + turn("assistant", self.end_token)
            + "{% if not loop.last %}{{ "
            + _quote(self.between)
            + " }}{% endif %}"
            + "{% elif message['role'] == 'system' %}"
            + turn("system", self.after["system"])
            + "{% else %}"
            + turn("user", self.after["user"])
            + "{% endif %}{% endfor %}"
        )
        # The answer prefix follows a user turn only when the model is to write.
        prompt = "{% if add_generation_prompt %}{{ " + _quote(self.before["assistant"]) + " }}"
        return bos + default + body + prompt + "{% endif %}"


def _quote(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n") + "'"


BAYLING = Template(
    name="bayling",
    system=(
        "I am an intelligent language assistant developed by the NLP Group of ICT/CAS.\n"
        "Below is a dialog consisting of instructions and responses. "
        "Write a response that completes the request."
    ),
    before={"system": "", "user": "### Instruction:\n", "assistant": "### Response:\n"},
    after={"system": "\n\n", "user": "\n"},
    between="\n",
    end_token="</s>",
    bos_token="<s>",
    control_tokens=("<s>", "</s>"),
    stop_tokens=("</s>",),
)

_HEADER = "<|start_header_id|>{}<|end_header_id|>\n\n"
BAYLING3 = Template(
    name="bayling3",
    system="I am BayLing developed by the NLP Group of ICT/CAS.",
    before={role: _HEADER.format(role) for role in ("system", "user", "assistant")},
    after={"system": "<|eot_id|>", "user": "<|eot_id|>"},
    between="",
    end_token="<|eot_id|>",
    bos_token="<|begin_of_text|>",
    control_tokens=(
        "<|begin_of_text|>",
        "<|end_of_text|>",
        "<|start_header_id|>",
        "<|end_header_id|>",
        "<|eot_id|>",
    ),
    # The published script also stops on id 2, left over from Llama 2: in Llama 3 that is
    # the character "#", which an answer may well contain.
    stop_tokens=("<|eot_id|>", "<|end_of_text|>"),
    strip=True,
)

CHATML = Template(
    name="chatml",
    system=None,
    before={role: f"<|im_start|>{role}\n" for role in ("system", "user", "assistant")},
    after={"system": "<|im_end|>\n", "user": "<|im_end|>\n"},
    between="\n",
    end_token="<|im_end|>",
    bos_token=None,
    control_tokens=("<|im_start|>", "<|im_end|>"),
    stop_tokens=("<|im_end|>",),
)

TEMPLATES = {template.name: template for template in (BAYLING, BAYLING3, CHATML)}


def check_turns(messages: Sequence[Message]) -> None:
    """Refuse anything but: optionally one system turn, then user and assistant in turn."""
    if not messages:
        raise TemplateError("a conversation needs at least one message")
    for index, message in enumerate(messages):
        if message.role not in ("system", "user", "assistant"):
            raise TemplateError(
                f"message {index + 1} has the role {message.role!r}: use system, user or assistant"
            )
    turns = [message.role for message in messages]
    if turns[0] == "system":
        turns = turns[1:]
    expected = ["user", "assistant"] * (len(turns) // 2 + 1)
    if not turns or turns != expected[: len(turns)]:
        raise TemplateError(
            "after an optional system message, user and assistant must take turns, the user "
            f"first; these are: {', '.join(message.role for message in messages)}"
        )


class ChatFormat:
    """A template joined with a tokenizer: makes token ids.

    `template=None` is the model's own: the chat template that its tokenizer brings.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, template: Template | None) -> None:
        self.tokenizer = tokenizer
        self.template = template
        if template is None:
            if not tokenizer.chat_template:
                raise TemplateError(
                    "model.template=own needs a tokenizer with a chat template, and this one "
                    "has none: choose bayling, bayling3 or chatml"
                )
            self._own_probe()
        else:
            for token in (*template.control_tokens, template.end_token):
                if token not in tokenizer.get_vocab():
                    raise TemplateError(
                        f"template {template.name!r} needs the token {token!r}, which this "
                        "tokenizer does not have: choose the template the model was made with"
                    )

    @property
    def name(self) -> str:
        return self.template.name if self.template else "own"

    @cached_property
    def stop_ids(self) -> tuple[int, ...]:
        """Ids that end an answer, the tokenizer's EOS among them."""
        names = self.template.stop_tokens if self.template else ()
        vocabulary = self.tokenizer.get_vocab()
        ids = {vocabulary[name] for name in names if name in vocabulary}
        if self.tokenizer.eos_token_id is not None:
            ids.add(self.tokenizer.eos_token_id)
        return tuple(sorted(ids))

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """What the model is fed before it answers the last user turn."""
        if messages and messages[-1].role == "assistant":
            raise TemplateError("the last message must be the user's: there is nothing to answer")
        text = self._bos + self._render(messages).text
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def encode(self, conversations: Sequence[Sequence[Message]]) -> Iterator[Encoded | str]:
        """Token ids and loss mask of each conversation, or the reason why it has none."""
        rendered: list[Rendered | str] = []
        for messages in conversations:
            try:
                rendered.append(self._render(messages))
            except TemplateError as error:
                rendered.append(str(error))
        texts = [self._bos + item.text for item in rendered if isinstance(item, Rendered)]
        # Without the lists that transformers makes of every token: they take as long again.
        backend = self.tokenizer.backend_tokenizer
        backend.no_truncation()
        backend.no_padding()
        tokens = iter(backend.encode_batch(texts, add_special_tokens=False))
        for item in rendered:
            yield item if isinstance(item, str) else self._mask(item, next(tokens))

    def _mask(self, rendered: Rendered, tokens: Encoding) -> Encoded | str:
        ids = tokens.ids
        supervised = [False] * len(ids)
        length = len(self._bos) + len(rendered.text)

        def characters(token: int) -> tuple[int, int]:
            return tokens.token_to_chars(token) or (0, 0)  # none only where there is no such token

        def reaching_beyond(character: int) -> int:
            """The first token that ends after a character."""
            if character >= length:
                return len(ids)
            found = tokens.char_to_token(character)
            if found is not None:
                return found
            # The tokenizer leaves that character out. Tokens are in the order of their characters.
            return bisect_left(range(len(ids)), True, key=lambda at: characters(at)[1] > character)

        for answer in rendered.answers:
            start, end = (place + len(self._bos) for place in answer)
            first = reaching_beyond(start)
            if first < len(ids) and characters(first)[0] < start:
                # A token that is half prompt, half answer: the server, which has only the
                # prompt, would make other ids.
                return "a token spans the start of an answer"
            last = reaching_beyond(end)
            while last < len(ids) and characters(last)[0] < end:
                last += 1
            supervised[first:last] = [True] * (last - first)
        return Encoded(ids, supervised)

    @property
    def _bos(self) -> str:
        """The BOS token as text, as the Jinja form has it: what follows it is tokenised the same.

        SentencePiece puts a space before a text's first word, but not after a BOS token.
        """
        if self.template is None:
            return ""  # an own template writes its BOS itself
        return self.template.bos_token or ""

    def _render(self, messages: Sequence[Message]) -> Rendered:
        if self.template is not None:
            return self.template.render(messages)
        check_turns(messages)
        for message in messages:
            for token in self.tokenizer.all_special_tokens:
                if token in message.content:
                    raise TemplateError(
                        f"a message contains {token!r}, which the model's template uses to "
                        "mark turns: take it out of the text"
                    )
        text = self._own(messages, prompt=messages[-1].role == "user")
        answers = []
        for index, message in enumerate(messages):
            if message.role != "assistant":
                continue
            before = self._own(messages[:index], prompt=True)
            through = self._own(messages[: index + 1], prompt=False).rstrip()
            if not (text.startswith(before) and text.startswith(through)):
                raise TemplateError(
                    "the tokenizer's chat template rewrites earlier turns when later ones "
                    "follow, so that no loss mask can be made: choose another template"
                )
            answers.append((len(before), len(through)))
        return Rendered(text, answers)

    def _own(self, messages: Sequence[Message], *, prompt: bool) -> str:
        rows = [{"role": message.role, "content": message.content} for message in messages]
        text = self.tokenizer.apply_chat_template(
            rows, tokenize=False, add_generation_prompt=prompt
        )
        return str(text)

    def _own_probe(self) -> None:
        """Refuse a chat template that shows no place for the answer."""
        probe = [Message("user", "question"), Message("assistant", "the-answer")]
        if "the-answer" not in self._own(probe, prompt=False):
            raise TemplateError(
                "the tokenizer's chat template has no place for the assistant's answer: "
                "choose bayling, bayling3 or chatml"
            )
