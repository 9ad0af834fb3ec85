from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from tiny_tokenizers import CORPUS, llama2, llama3
from transformers import PreTrainedTokenizerFast

from bayling.data.tokenizer import train
from bayling.model_folder import load_tokenizer
from bayling.templates import (
    BAYLING,
    BAYLING3,
    CHATML,
    TEMPLATES,
    ChatFormat,
    Encoded,
    Message,
    Template,
    TemplateError,
)

pytestmark = pytest.mark.unit

SYSTEM = (
    "I am an intelligent language assistant developed by the NLP Group of ICT/CAS.\n"
    "Below is a dialog consisting of instructions and responses. "
    "Write a response that completes the request.\n\n"
)

# An own template as Llama 2's chat models bring it; no token stands before the answer.
LLAMA2_CHAT = (
    "{% for m in messages %}{% if m['role'] == 'user' %}"
    "{{ bos_token + '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% else %}{{ ' ' + m['content'] + ' ' + eos_token }}{% endif %}{% endfor %}"
)


def chat(*contents: str, system: str | None = None) -> list[Message]:
    """User and assistant in turn."""
    turns = [Message(("user", "assistant")[i % 2], text) for i, text in enumerate(contents)]
    return [Message("system", system), *turns] if system is not None else turns


# Histories in several scripts, all ending with an answer.
TALKS = [
    chat("Provide the German translation for this sentence: in 5 days", "in 5 Tagen"),
    chat("提供这句话的德语翻译：五天后", "in 5 Tagen", "现在用中文。", "5天后"),
    chat("नमस्ते दुनिया", "世界你好", "Now in Hindi.", "नमस्ते दुनिया", "In Arabic.", "مرحبا بالعالم"),
    chat("🎉 emoji 👩‍👩‍👧", "🎉👩‍👩‍👧", "e\u0301 decomposed", "é", "0", "1"),
    chat(
        "two\nlines\n", "two\n\nlines", "  spaces  ", "in  between", "<b>&amp;", "{{ x }} {% y %}"
    ),
    chat("a", "b", system="Answer briefly, 请简短。"),
]


@pytest.fixture(scope="session")
def sentencepiece(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerFast:
    return llama2(tmp_path_factory.mktemp("llama2"))


@pytest.fixture(scope="session")
def legacy(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerFast:
    return llama2(tmp_path_factory.mktemp("legacy"), legacy=True)


@pytest.fixture(scope="session")
def llama3_style() -> PreTrainedTokenizerFast:
    return llama3()


BUILT_IN = ("sentencepiece", "legacy", "llama3", "bytes", "chatml")


@pytest.fixture(params=[*BUILT_IN, "own"])
def chat_format(
    request: pytest.FixtureRequest,
    sentencepiece: PreTrainedTokenizerFast,
    legacy: PreTrainedTokenizerFast,
    llama3_style: PreTrainedTokenizerFast,
) -> ChatFormat:
    """Every template with the kind of tokenizer that it is used with."""
    if request.param == "sentencepiece":
        return ChatFormat(sentencepiece, BAYLING)
    if request.param == "legacy":
        return ChatFormat(legacy, BAYLING)
    if request.param == "llama3":
        return ChatFormat(llama3_style, BAYLING3)
    if request.param == "own":
        tokenizer = train(CORPUS, 400, BAYLING)
        tokenizer.chat_template = CHATML.chat_template().replace("<|im_end|>", "</s>")
        return ChatFormat(tokenizer, None)
    template = CHATML if request.param == "chatml" else BAYLING
    return ChatFormat(train(CORPUS, 400, template), template)


def rows(messages: Sequence[Message]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in messages]


def encoded(chat_format: ChatFormat, messages: Sequence[Message]) -> Encoded:
    (result,) = chat_format.encode([messages])
    assert isinstance(result, Encoded), result
    return result


def spans(result: Encoded) -> list[list[int]]:
    """The runs of ids that are supervised."""
    found: list[list[int]] = []
    before = False
    for token, supervised in zip(result.ids, result.supervised, strict=True):
        if supervised and not before:
            found.append([])
        if supervised:
            found[-1].append(token)
        before = supervised
    return found


# --- text -------------------------------------------------------------------------------------


def test_bayling_renders_a_single_turn_as_published() -> None:
    assert BAYLING.render(chat("Hello", "Hi")).text == (
        SYSTEM + "### Instruction:\nHello\n### Response:\nHi</s>"
    )


def test_bayling_renders_several_turns_and_the_place_to_answer_as_published() -> None:
    assert BAYLING.render(chat("user 1", "assistant 1", "user 2")).text == (
        SYSTEM
        + "### Instruction:\nuser 1\n### Response:\nassistant 1</s>\n"
        + "### Instruction:\nuser 2\n### Response:\n"
    )


def test_bayling3_renders_turns_as_published_and_strips_messages() -> None:
    assert BAYLING3.render(chat(" user 1\n", "\nassistant 1 ", "user 2")).text == (
        "<|start_header_id|>system<|end_header_id|>\n\n"
        "I am BayLing developed by the NLP Group of ICT/CAS.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nuser 1<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nassistant 1<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nuser 2<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )


def test_chatml_has_no_system_turn_of_its_own() -> None:
    assert CHATML.render(chat("a", "b", "c")).text == (
        "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n"
        "<|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\n"
    )


def test_a_system_message_takes_the_place_of_the_templates_own() -> None:
    messages = chat("a", system="Be brief.")
    assert BAYLING.render(messages).text == ("Be brief.\n\n### Instruction:\na\n### Response:\n")
    assert BAYLING3.render(messages).text.startswith(
        "<|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
    )
    assert CHATML.render(messages).text.startswith("<|im_start|>system\nBe brief.<|im_end|>\n")


@pytest.mark.parametrize("name", sorted(TEMPLATES))
def test_the_answers_of_a_rendered_text_are_where_it_says(name: str) -> None:
    template = TEMPLATES[name]
    rendered = template.render(chat("a", "erste 回答", "c", "second"))
    assert [rendered.text[start:end] for start, end in rendered.answers] == [
        "erste 回答" + template.end_token,
        "second" + template.end_token,
    ]


@pytest.mark.parametrize(
    "roles",
    [
        [],
        ["system"],
        ["assistant"],
        ["assistant", "user"],
        ["user", "user"],
        ["user", "assistant", "assistant"],
        ["user", "system"],
        ["system", "system", "user"],
        ["user", "tool"],
    ],
)
@pytest.mark.parametrize("name", sorted(TEMPLATES))
def test_turns_out_of_order_are_refused(name: str, roles: list[str]) -> None:
    with pytest.raises(TemplateError):
        TEMPLATES[name].render([Message(role, "text") for role in roles])


@pytest.mark.parametrize(
    ("template", "token"),
    [(template, token) for template in TEMPLATES.values() for token in template.control_tokens],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_a_message_with_a_control_token_is_refused(template: Template, token: str) -> None:
    for messages in (chat(f"a{token}"), chat("a", f"{token} b", "c"), chat("a", system=token)):
        with pytest.raises(TemplateError, match="take it out of the text"):
            template.render(messages)


# --- the Jinja form ---------------------------------------------------------------------------


@pytest.mark.parametrize("chat_format", BUILT_IN, indirect=True)
@pytest.mark.parametrize("messages", TALKS)
def test_the_exported_chat_template_gives_the_same_text_and_ids(
    chat_format: ChatFormat,
    messages: list[Message],
) -> None:
    template, tokenizer = chat_format.template, chat_format.tokenizer
    assert template is not None
    tokenizer.chat_template = template.chat_template()
    bos = template.bos_token or ""
    history = messages[:-1]
    text = tokenizer.apply_chat_template(rows(history), tokenize=False, add_generation_prompt=True)
    assert text == bos + template.render(history).text
    whole = tokenizer.apply_chat_template(rows(messages), tokenize=False)
    assert whole == bos + template.render(messages).text
    ids = tokenizer.apply_chat_template(
        rows(history), add_generation_prompt=True, return_dict=True
    )["input_ids"]
    assert ids == chat_format.prompt_ids(history)


def test_a_saved_tokenizer_brings_the_template_and_gives_the_same_ids(
    sentencepiece: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    sentencepiece.chat_template = BAYLING.chat_template()
    sentencepiece.save_pretrained(tmp_path)
    again = load_tokenizer(tmp_path)
    assert again.chat_template == BAYLING.chat_template()
    assert (tmp_path / "tokenizer.json").exists()
    for messages in TALKS:
        there = ChatFormat(again, BAYLING)
        assert encoded(there, messages) == encoded(ChatFormat(sentencepiece, BAYLING), messages)


# --- the token contract -----------------------------------------------------------------------


@pytest.mark.parametrize("messages", TALKS)
def test_exactly_the_answers_with_their_end_tokens_are_supervised(
    chat_format: ChatFormat,
    messages: list[Message],
) -> None:
    end = chat_format.template.end_token if chat_format.template else "</s>"
    result = encoded(chat_format, messages)
    answers = [message.content for message in messages if message.role == "assistant"]
    decoded = [
        chat_format.tokenizer.decode(ids, clean_up_tokenization_spaces=False)
        for ids in spans(result)
    ]
    assert decoded == [answer + end for answer in answers]
    for ids in spans(result):
        assert ids[-1] in chat_format.stop_ids
        assert not set(ids[:-1]) & set(chat_format.stop_ids)


@pytest.mark.parametrize("messages", TALKS)
def test_the_prompt_of_every_turn_is_how_the_whole_conversation_begins(
    chat_format: ChatFormat,
    messages: list[Message],
) -> None:
    result = encoded(chat_format, messages)
    for index, message in enumerate(messages):
        if message.role != "user":
            continue
        prompt = chat_format.prompt_ids(messages[: index + 1])
        assert result.ids[: len(prompt)] == prompt
        assert result.supervised[len(prompt)]
        assert not result.supervised[len(prompt) - 1]


def test_an_answer_is_labelled_right_or_not_at_all(chat_format: ChatFormat) -> None:
    """Whatever an answer begins with: what is supervised is what the server's prompt leaves."""
    alphabet = ["\n", " ", "\t", "\u3000", "5", "Tag", "五", "م", "🎉", "é", ".", "'s", "#"]
    rng = random.Random(7)
    kept = 0
    for _ in range(150):
        texts = ["".join(rng.choices(alphabet, k=rng.randint(1, 4))) for _ in range(4)]
        messages = chat(*texts)
        (result,) = chat_format.encode([messages])
        if isinstance(result, str):
            assert result == "a token spans the start of an answer"
            continue
        kept += 1
        for index in (0, 2):
            prompt = chat_format.prompt_ids(messages[: index + 1])
            assert result.ids[: len(prompt)] == prompt
            assert result.supervised[len(prompt)]
            assert not result.supervised[len(prompt) - 1]
    assert kept >= 50


def test_an_answer_that_melts_into_the_prompt_is_reported_and_not_mislabelled() -> None:
    tokenizer = llama3()
    tokenizer.add_special_tokens({"additional_special_tokens": list(CHATML.control_tokens)})
    chat_format = ChatFormat(tokenizer, CHATML)
    good = chat("in 5 days", "in 5 Tagen")
    melted = chat("in 5 days", "\n\nin 5 Tagen")
    refused = chat("in 5 days", "in <|im_end|> Tagen")
    first, second, third, fourth = chat_format.encode([good, melted, refused, good])
    assert isinstance(first, Encoded)
    assert second == "a token spans the start of an answer"
    assert isinstance(third, str)
    assert "<|im_end|>" in third
    assert fourth == first


def test_a_conversation_alone_and_among_others_gives_the_same_tokens(
    chat_format: ChatFormat,
) -> None:
    together = list(chat_format.encode(TALKS[:-1]))
    assert together == [encoded(chat_format, messages) for messages in TALKS[:-1]]
    assert list(chat_format.encode([])) == []


def test_the_sentencepiece_model_falls_back_to_bytes(
    sentencepiece: PreTrainedTokenizerFast,
) -> None:
    ids = encoded(ChatFormat(sentencepiece, BAYLING), chat("a", "🎉"))
    names = sentencepiece.convert_ids_to_tokens(spans(ids)[0])
    assert names == ["<0xF0>", "<0x9F>", "<0x8E>", "<0x89>", "</s>"]


@pytest.mark.parametrize("chat_format", ["sentencepiece", "llama3", "bytes"], indirect=True)
def test_a_prompt_begins_with_one_bos_token(chat_format: ChatFormat) -> None:
    ids = chat_format.prompt_ids(chat("a", "b", "c"))
    bos = chat_format.tokenizer.bos_token_id
    assert ids[0] == bos
    assert ids.count(bos) == 1


def test_there_is_no_prompt_after_an_answer(chat_format: ChatFormat) -> None:
    with pytest.raises(TemplateError, match="nothing to answer"):
        chat_format.prompt_ids(chat("a", "b"))


def test_bayling3_stops_on_its_end_tokens_but_not_on_the_character_with_id_2(
    llama3_style: PreTrainedTokenizerFast,
) -> None:
    stops = ChatFormat(llama3_style, BAYLING3).stop_ids
    assert llama3_style.convert_ids_to_tokens(stops) == ["<|end_of_text|>", "<|eot_id|>"]
    assert 2 not in stops


def test_a_tokenizer_without_the_templates_tokens_is_refused(
    sentencepiece: PreTrainedTokenizerFast,
) -> None:
    with pytest.raises(TemplateError, match=r"'bayling3' needs the token '<\|begin_of_text\|>'"):
        ChatFormat(sentencepiece, BAYLING3)


# --- own templates ----------------------------------------------------------------------------


def own(jinja: str | None) -> ChatFormat:
    tokenizer = train(CORPUS, 400, BAYLING)
    tokenizer.chat_template = jinja
    return ChatFormat(tokenizer, None)


def test_a_models_own_template_is_used_for_text_labels_and_stop() -> None:
    chat_format = own(LLAMA2_CHAT)
    assert chat_format.name == "own"
    result = encoded(chat_format, chat("in 5 days", "in 5 Tagen", "shorter", "5 T."))
    assert chat_format.tokenizer.decode(result.ids) == (
        "<s>[INST] in 5 days [/INST] in 5 Tagen </s><s>[INST] shorter [/INST] 5 T. </s>"
    )
    assert [chat_format.tokenizer.decode(ids) for ids in spans(result)] == [
        " in 5 Tagen </s>",
        " 5 T. </s>",
    ]
    prompt = chat_format.prompt_ids(chat("in 5 days"))
    assert result.ids[: len(prompt)] == prompt
    assert chat_format.stop_ids == (chat_format.tokenizer.eos_token_id,)


def test_own_without_a_chat_template_is_refused() -> None:
    with pytest.raises(TemplateError, match="choose bayling, bayling3 or chatml"):
        own(None)


def test_a_chat_template_that_leaves_out_the_answer_is_refused() -> None:
    with pytest.raises(TemplateError, match="no place for the assistant's answer"):
        own("{{ messages[0]['content'] }}")


@pytest.mark.parametrize(
    "jinja",
    [
        # Answers are cut short once another turn follows.
        "{% for m in messages %}{{ m['role'] + ': ' + (m['content'] if loop.last or "
        "m['role'] == 'user' else '…') + '\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}",
        # The model is asked to think first, but the thoughts are not in the history.
        "{% for m in messages %}{{ m['role'] + ':\n' + m['content'] + '</s>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'assistant:\n<think></think>\n' }}{% endif %}",
    ],
)
def test_a_chat_template_that_rewrites_the_history_gives_a_reason_and_no_labels(
    jinja: str,
) -> None:
    (result,) = own(jinja).encode([chat("a", "answer", "b", "answer")])
    assert isinstance(result, str)
    assert "no loss mask can be made" in result


def test_a_special_token_in_a_message_is_refused_by_an_own_template() -> None:
    with pytest.raises(TemplateError, match="'</s>'"):
        own(LLAMA2_CHAT).prompt_ids(chat("a</s>"))
