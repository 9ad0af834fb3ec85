"""What every engine does, whichever it is: one suite, run against all that are installed."""

from __future__ import annotations

import asyncio
import math
import pickle
import random
import time
from collections.abc import Sequence

import pytest
import torch
from tiny_model import CONTEXT
from transformers import LlamaForCausalLM

from bayling.engines.protocol import (
    MAX_LOGPROBS,
    Chunk,
    Engine,
    Load,
    PromptTooLong,
    RequestRefused,
    Sampling,
    Stopped,
    Timing,
)

Prompts = list[list[int]]


def generated_alone(
    model: LlamaForCausalLM, prompt: Sequence[int], new: int, stop: int | None = None
) -> list[int]:
    """What transformers' own greedy generation answers to one prompt."""
    with torch.inference_mode():
        ids: torch.Tensor = model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=new,
            do_sample=False,
            eos_token_id=stop,
            pad_token_id=0,
        )
    answer: list[int] = ids[0, len(prompt) :].tolist()
    return answer[:-1] if stop is not None and answer[-1] == stop else answer


async def streamed(
    engine: Engine, name: str, prompt: list[int], sampling: Sampling, every_s: float = 0
) -> tuple[list[int], str | None, int]:
    ids: list[int] = []
    reason, chunks = None, 0
    async for chunk in engine.generate(name, prompt, sampling, every_s=every_s):
        ids += chunk.ids
        reason, chunks = chunk.finish_reason, chunks + 1
    return ids, reason, chunks


def test_a_batch_answers_what_generate_answers_to_each_prompt_alone(
    engine: Engine, alone: LlamaForCausalLM, prompts: Prompts
) -> None:
    answers = engine.generate_all(prompts, Sampling(24))
    assert [answer.ids for answer in answers] == [
        generated_alone(alone, prompt, 24) for prompt in prompts
    ]
    assert {answer.finish_reason for answer in answers} == {"length"}


def test_company_that_comes_and_goes_changes_no_answer(
    engine: Engine, alone: LlamaForCausalLM, prompts: Prompts
) -> None:
    async def arrive(index: int) -> tuple[list[int], str | None, int]:
        await asyncio.sleep(0.004 * index)
        temperature = 1.3 if index % 3 == 2 else 0.0  # sampled rows between the greedy ones
        sampling = Sampling(10 + 7 * (index % 4), temperature=temperature, seed=index)
        return await streamed(engine, f"arrival-{index}", prompts[index], sampling)

    async def everyone() -> list[tuple[list[int], str | None, int]]:
        return await asyncio.gather(*(arrive(index) for index in range(len(prompts))))

    answers = asyncio.run(everyone())
    for index, (ids, reason, _) in enumerate(answers):
        assert reason == "length"
        if index % 3 != 2:
            assert ids == generated_alone(alone, prompts[index], 10 + 7 * (index % 4))


def test_a_long_neighbour_leaves_and_the_short_ones_go_on_unchanged(
    engine: Engine, alone: LlamaForCausalLM, prompts: Prompts
) -> None:
    long = [7] * 200
    samplings = [Sampling(4), Sampling(90), Sampling(60)]
    answers = engine.generate_all([long, prompts[0], prompts[2]], samplings)
    assert answers[1].ids == generated_alone(alone, prompts[0], 90)
    assert answers[2].ids == generated_alone(alone, prompts[2], 60)


def test_a_stop_token_ends_the_answer_and_is_not_part_of_it(
    engine: Engine, alone: LlamaForCausalLM, prompts: Prompts
) -> None:
    free = generated_alone(alone, prompts[2], 20)
    stop = free[6]
    [answer] = engine.generate_all([prompts[2]], Sampling(20, stop_ids=(1, stop)))
    assert answer.ids == generated_alone(alone, prompts[2], 20, stop)
    assert answer.finish_reason == "stop"


def test_a_seed_draws_the_same_in_any_company(engine: Engine, prompts: Prompts) -> None:
    own = Sampling(20, temperature=0.9, top_p=0.8, seed=11)
    others = [Sampling(9, temperature=1.5), Sampling(30), Sampling(14, temperature=0.7, top_p=0.5)]
    [by_itself] = engine.generate_all(prompts[:1], own)
    together = engine.generate_all(prompts[:4], [own, *others])
    assert together[0].ids == by_itself.ids
    assert engine.generate_all(prompts[:1], Sampling(20, temperature=0.9, seed=12))[0] != by_itself


def test_a_small_top_p_leaves_only_the_likeliest_token(engine: Engine, prompts: Prompts) -> None:
    drawn = engine.generate_all(prompts[:3], Sampling(12, temperature=0.8, top_p=1e-6))
    assert drawn == engine.generate_all(prompts[:3], Sampling(12))


def test_draws_follow_the_models_probabilities(
    engine: Engine, alone: LlamaForCausalLM, prompts: Prompts
) -> None:
    draws = 600
    samplings = [Sampling(1, temperature=1.0, seed=seed) for seed in range(draws)]
    first = [answer.ids[0] for answer in engine.generate_all([prompts[0]] * draws, samplings)]
    with torch.inference_mode():
        expected = torch.softmax(alone(torch.tensor([prompts[0]])).logits[0, -1], -1)
    likeliest = int(expected.argmax())
    share, wanted = first.count(likeliest) / draws, float(expected[likeliest])
    assert abs(share - wanted) < 4 * math.sqrt(wanted * (1 - wanted) / draws)


def test_tokens_that_are_ready_together_travel_together(engine: Engine, prompts: Prompts) -> None:
    async def both() -> tuple[tuple[list[int], str | None, int], ...]:
        each = await streamed(engine, "each", prompts[0], Sampling(30))
        whole = await streamed(engine, "whole", prompts[0], Sampling(30), every_s=math.inf)
        return each, whole

    each, whole = asyncio.run(both())
    assert each[0] == whole[0]
    assert each[2] == 30 and whole[2] == 1


def test_leaving_a_stream_early_frees_its_place(engine: Engine, prompts: Prompts) -> None:
    async def leave() -> None:
        stream = engine.generate("left", prompts[0], Sampling(3000))
        assert (await anext(stream)).ids
        assert engine.ongoing() == 1
        await stream.aclose()
        while engine.ongoing():
            await asyncio.sleep(0.005)

    asyncio.run(asyncio.wait_for(leave(), 60))


def test_a_cancelled_request_says_so_whether_it_runs_or_waits(
    engine: Engine, prompts: Prompts
) -> None:
    async def cancel_all() -> list[tuple[list[int], str | None, int]]:
        # One more than fit: the last one waits.
        names = [f"cancelled-{n}" for n in range(5)]
        tasks = [
            asyncio.create_task(streamed(engine, name, prompts[1], Sampling(3000)))
            for name in names
        ]
        while engine.ongoing() < 5:
            await asyncio.sleep(0.002)
        for name in names:
            engine.cancel(name)
        return await asyncio.gather(*tasks)

    answers = asyncio.run(asyncio.wait_for(cancel_all(), 60))
    assert [reason for _, reason, _ in answers] == ["cancelled"] * 5
    assert all(len(ids) < 3000 for ids, _, _ in answers)


def test_its_load_tells_who_runs_and_who_waits(engine: Engine, prompts: Prompts) -> None:
    async def loaded() -> Load:
        tasks = [
            asyncio.create_task(streamed(engine, f"load-{n}", prompts[1], Sampling(3000)))
            for n in range(6)
        ]
        while (load := engine.load()).running < 4 or load.waiting < 2 or not load.cache_used:
            await asyncio.sleep(0.002)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        while engine.ongoing():
            await asyncio.sleep(0.002)
        return load

    load = asyncio.run(asyncio.wait_for(loaded(), 60))
    assert (load.running, load.waiting) == (4, 2)
    assert load.cache_used is not None and 0 < load.cache_used < 1
    assert engine.load() == Load(0, 0, 0.0)


def test_an_answer_in_one_piece_tells_how_long_it_waited_and_took(
    engine: Engine, prompts: Prompts
) -> None:
    async def timing(name: str, new: int) -> Timing:
        chunks = engine.generate(name, prompts[1], Sampling(new), every_s=math.inf)
        [chunk] = [chunk async for chunk in chunks]
        assert chunk.timing is not None
        return chunk.timing

    async def full() -> list[Timing]:
        first = [asyncio.create_task(timing(f"timed-{n}", 60)) for n in range(4)]
        return await asyncio.gather(*first, timing("behind", 2))

    began = time.monotonic()
    *running, behind = asyncio.run(asyncio.wait_for(full(), 60))
    took = time.monotonic() - began
    assert all(one.waiting_s >= 0 and 0 < one.decoding_s < took for one in running)
    # It got its place when the first of the others had left.
    assert behind.waiting_s > min(one.decoding_s for one in running) > behind.decoding_s


def test_a_prompt_that_goes_on_from_another_is_answered_alike_and_says_how_much_was_known(
    engine: Engine, alone: LlamaForCausalLM
) -> None:
    async def last(name: str, prompt: list[int]) -> tuple[list[int], int]:
        ids: list[int] = []
        known = []
        async for chunk in engine.generate(name, prompt, Sampling(8)):
            ids += chunk.ids
            known.append(chunk.cached_tokens)
        assert not any(known[:-1]), "it is told with the last chunk"
        return ids, known[-1]

    rng = random.Random(8)
    prompt = [rng.randrange(2, 450) for _ in range(300)]
    answer, known = asyncio.run(last("first", prompt))
    assert known == 0
    longer = [*prompt, *answer, *prompt[:20]]
    answer, known = asyncio.run(last("second", longer))
    # Whole blocks only, which have up to 128 tokens.
    assert 128 <= known < len(longer)
    assert answer == generated_alone(alone, longer, 8)


@pytest.mark.parametrize(
    ("prompt", "sampling", "told"),
    [
        ([], Sampling(5), "empty"),
        ([3, 100_000], Sampling(5), "100000"),
        ([3, -1], Sampling(5), "-1"),
        ([3], Sampling(0), "max_new_tokens"),
        ([3], Sampling(5, temperature=-0.5), "temperature"),
        ([3], Sampling(5, temperature=math.nan), "temperature"),
        ([3], Sampling(5, top_p=0.0), "top_p"),
        ([3], Sampling(5, top_p=1.5), "top_p"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name_and_harms_nobody(
    engine: Engine, prompt: list[int], sampling: Sampling, told: str
) -> None:
    with pytest.raises(RequestRefused, match=told):
        engine.generate_all([[5, 6, 7], prompt], [Sampling(3), sampling])
    assert engine.ongoing() == 0
    assert len(engine.generate_all([[5, 6, 7]], Sampling(3))[0].ids) == 3


def test_a_prompt_beyond_the_context_is_told_all_numbers(engine: Engine) -> None:
    with pytest.raises(PromptTooLong) as caught:
        engine.generate_all([[5] * (CONTEXT - 6)], Sampling(7))
    told = pickle.loads(pickle.dumps(caught.value))  # as it travels between replicas
    assert (told.prompt_tokens, told.new_tokens, told.context_length) == (CONTEXT - 6, 7, CONTEXT)
    assert str(CONTEXT) in str(told) and str(CONTEXT + 1) in str(told)
    assert len(engine.generate_all([[5] * (CONTEXT - 6)], Sampling(6))[0].ids) == 6


def test_scores_are_the_log_probabilities_of_the_model(
    engine: Engine, alone: LlamaForCausalLM, prompts: Prompts
) -> None:
    ids = prompts[2]
    with torch.inference_mode():
        expected = torch.log_softmax(alone(torch.tensor([ids])).logits[0], -1)
    wanted = [float(expected[place, token]) for place, token in enumerate(ids[1:])]
    scores = asyncio.run(engine.score("scored", ids, 3))
    assert [score.logprob for score in scores] == pytest.approx(wanted, abs=1e-4)
    for place, score in enumerate(scores):
        values, best = expected[place].topk(3)
        assert [token for token, _ in score.top] == best.tolist()
        assert [value for _, value in score.top] == pytest.approx(values.tolist(), abs=1e-4)
    with pytest.raises(RequestRefused):
        asyncio.run(engine.score("too short", ids[:1]))


def test_answers_come_back_in_the_order_of_the_prompts_and_are_counted(
    engine: Engine, prompts: Prompts
) -> None:
    samplings = [Sampling(1 + index) for index in range(len(prompts))]
    counts: list[int] = []
    answers = engine.generate_all(prompts, samplings, counts.append)
    assert [len(answer.ids) for answer in answers] == list(range(1, 11))
    assert counts == list(range(1, 11))


def test_an_answers_log_probabilities_are_those_of_scoring_it(
    engine: Engine, prompts: Prompts
) -> None:
    async def both() -> None:
        for every_s in (0.0, math.inf):
            ids, scores = [], []
            sampling = Sampling(9, temperature=1.2, seed=4, logprobs=2)
            async for chunk in engine.generate("told", prompts[2], sampling, every_s=every_s):
                assert chunk.scores is not None and len(chunk.scores) == len(chunk.ids)
                ids += chunk.ids
                scores += chunk.scores
            expected = (await engine.score("scored", prompts[2] + ids, 2))[-len(ids) :]
            for one, other in zip(scores, expected, strict=True):
                assert one.logprob == pytest.approx(other.logprob, abs=1e-4)
                assert [token for token, _ in one.top] == [token for token, _ in other.top]

    asyncio.run(both())


def test_a_text_as_long_as_the_context_is_scored(engine: Engine) -> None:
    scores = asyncio.run(engine.score("long", [5] * CONTEXT, 0))
    assert len(scores) == CONTEXT - 1
    with pytest.raises(RequestRefused, match=str(CONTEXT)):
        asyncio.run(engine.score("too long", [5] * (CONTEXT + 1), 0))


def test_scoring_and_generating_go_on_side_by_side(engine: Engine, prompts: Prompts) -> None:
    async def both() -> tuple[list[list[int]], list[int]]:
        answers = [streamed(engine, f"beside-{n}", prompts[n], Sampling(30)) for n in range(4)]
        texts = [engine.score(f"text-{n}", prompts[n], 1) for n in (0, 1, 2, 4)]
        generated, scored = await asyncio.gather(asyncio.gather(*answers), asyncio.gather(*texts))
        return [ids for ids, _, _ in generated], [len(scores) for scores in scored]

    answers, lengths = asyncio.run(asyncio.wait_for(both(), 60))
    assert answers == [answer.ids for answer in engine.generate_all(prompts[:4], Sampling(30))]
    assert lengths == [len(prompts[n]) - 1 for n in (0, 1, 2, 4)]


def test_an_adapter_that_is_not_there_is_refused_by_name(engine: Engine) -> None:
    with pytest.raises(RequestRefused, match="'formal'"):
        engine.generate_all([[5, 6]], Sampling(3, adapter="formal"))
    with pytest.raises(RequestRefused, match="'formal'"):
        asyncio.run(engine.score("adapted", [5, 6], 0, "formal"))


def test_an_id_that_is_in_use_is_refused_and_the_first_request_goes_on(
    engine: Engine, prompts: Prompts
) -> None:
    async def twice() -> int:
        first = asyncio.create_task(streamed(engine, "twice", prompts[0], Sampling(200)))
        while not engine.ongoing():
            await asyncio.sleep(0.002)
        with pytest.raises(RequestRefused, match="twice"):
            await streamed(engine, "twice", prompts[0], Sampling(3))
        return len((await first)[0])

    assert asyncio.run(asyncio.wait_for(twice(), 60)) == 200


def test_no_request_breaks_the_engine(engine: Engine, prompts: Prompts) -> None:
    """Three hundred at the edges of what can be asked: each is answered in full or refused."""
    rng = random.Random(8)
    expected = engine.generate_all(prompts[:2], Sampling(5))

    def odd(choices: Sequence[float]) -> float:
        return rng.choice(choices)

    async def ask(number: int) -> bool:
        prompt = [
            rng.choice((0, 1, 2, 449, -1, 10**9) if rng.random() < 0.1 else range(2, 450))
            for _ in range(rng.choice((0, 1, 2, 15, 16, 17, 128, 300)))
        ]
        sampling = Sampling(
            int(odd((0, 1, 2, 7, CONTEXT))) if rng.random() < 0.3 else 6,
            temperature=odd((0.0, 1e-9, 1e-4, 0.01, 1.0, 2.0, 100.0, 1e30, math.nan, -1.0)),
            top_p=odd((1e-9, 0.5, 1.0, 1.0 - 1e-9, 0.0, 2.0)),
            seed=rng.choice((None, 0, -1, -5, 2**63 - 1, -(2**63))),
            stop_ids=rng.choice(((), (3,), (10**6,), (1, 1, 1), tuple(range(100)))),
            logprobs=rng.choice((None, 0, 1, MAX_LOGPROBS, MAX_LOGPROBS + 1)),
        )
        every_s = rng.choice((0.0, 0.01, math.inf))
        name = f"odd-{number}"
        try:
            if rng.random() < 0.2:
                return bool(await engine.score(name, prompt, sampling.logprobs or 0))
            _, reason, _ = await streamed(engine, name, prompt, sampling, every_s)
        except RequestRefused:
            return False
        return reason in ("stop", "length")

    async def everyone() -> list[bool]:
        return await asyncio.gather(*(ask(number) for number in range(300)))

    answered = asyncio.run(asyncio.wait_for(everyone(), 300))
    assert 30 < sum(answered) < 270
    engine.health()
    assert engine.ongoing() == 0
    assert engine.generate_all(prompts[:2], Sampling(5)) == expected


def test_the_token_that_stops_an_answer_is_told_with_its_score(
    engine: Engine, alone: LlamaForCausalLM, prompts: Prompts
) -> None:
    free = generated_alone(alone, prompts[2], 8)
    stop = free[6]

    async def last(new: int, logprobs: int | None) -> Chunk:
        sampling = Sampling(new, stop_ids=(stop,), logprobs=logprobs)
        *_, chunk = [chunk async for chunk in engine.generate("ended", prompts[2], sampling)]
        return chunk

    async def everything() -> None:
        place = free.index(stop)
        chunk = await last(20, 1)
        [expected] = (await engine.score("ended", prompts[2] + free[: place + 1], 1))[-1:]
        assert chunk.finish_reason == "stop"
        assert chunk.stopped_by is not None and chunk.stopped_by.token == stop
        assert chunk.stopped_by.score is not None
        assert chunk.stopped_by.score.logprob == pytest.approx(expected.logprob, abs=1e-4)
        assert (await last(20, None)).stopped_by == Stopped(stop, None)
        assert (await last(place, 1)).stopped_by is None

    asyncio.run(everything())


def test_an_id_can_be_used_again_as_soon_as_its_request_has_ended(
    engine: Engine, prompts: Prompts
) -> None:
    async def by_turns() -> None:
        for _ in range(20):
            assert len(await engine.score("again", prompts[0], 0)) == len(prompts[0]) - 1
            assert len((await streamed(engine, "again", prompts[0], Sampling(3)))[0]) == 3

    asyncio.run(asyncio.wait_for(by_turns(), 60))
    assert engine.ongoing() == 0
