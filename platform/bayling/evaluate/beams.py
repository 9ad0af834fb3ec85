"""Beam search, by transformers' own `generate` over padded batches: no engine has it."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from bayling.engines.loading import load_model


class BeamSearch:
    """A model that answers batches of prompts with the likeliest answer that beams find."""

    def __init__(self, folder: str, device: str, threads: int, max_batch: int) -> None:
        """Load the model.

        Args:
            max_batch: beams side by side, over all prompts of a batch.
        """
        torch.set_num_threads(threads)
        self._model = load_model(folder, device, "auto")
        self._device = device
        self._max_batch = max_batch

    @torch.inference_mode()
    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: Sequence[int],
        beams: int,
        stop_ids: Sequence[int],
    ) -> list[list[int]]:
        """The ids of each answer, without the token that ended it."""
        size = max(1, self._max_batch // beams)
        # Alike in length, as shorter ones are padded.
        order = sorted(range(len(prompts)), key=lambda index: -len(prompts[index]))
        answers: list[list[int]] = [[] for _ in prompts]
        for start in range(0, len(order), size):
            batch = order[start : start + size]
            longest = max(len(prompts[index]) for index in batch)
            pads = [longest - len(prompts[index]) for index in batch]
            ids = [[0] * pad + list(prompts[index]) for pad, index in zip(pads, batch, strict=True)]
            mask = [[0] * pad + [1] * (longest - pad) for pad in pads]
            made = self._model.generate(
                input_ids=torch.tensor(ids, device=self._device),
                attention_mask=torch.tensor(mask, device=self._device),
                max_new_tokens=max(max_new_tokens[index] for index in batch),
                num_beams=beams,
                do_sample=False,
                eos_token_id=list(stop_ids),
                pad_token_id=stop_ids[0],
            )
            for index, row in zip(batch, made[:, longest:].tolist(), strict=True):
                end = next((at for at, token in enumerate(row) if token in stop_ids), len(row))
                answers[index] = row[: min(end, max_new_tokens[index])]
        return answers
