"""A language model of a folder that runs here, by transformers: on a GPU if there is one."""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from knife.config.write import Write
from knife.core.errors import UserError
from knife.writing.answer import Answer
from knife.writing.asking import USED_UP, Outcome, Spent, Watch
from knife.writing.kept import Keeper
from knife.writing.prompt import Kind, Prompt
from knife.writing.request import Request, temperature_of


def _batches(requests: Sequence[Request], size: int) -> Iterator[list[Request]]:
    """Yield batches of requests of one kind, which are drawn at the same temperature."""
    kinds: dict[Kind, list[Request]] = {}
    for request in requests:
        kinds.setdefault(request.kind, []).append(request)
    for some in kinds.values():
        yield from (some[start : start + size] for start in range(0, len(some), size))


class LocalAsker:
    """Asks a model that this process has loaded, `in_flight` requests at a time."""

    def __init__(
        self, settings: Write, folder: Path, prompt: Prompt, keeper: Keeper, spent: Spent
    ) -> None:
        """Load the model; no code of its author is run.

        Raises:
            UserError: its files are not complete, or it is no decoder-only model.
        """
        # A server needs none of these, which take seconds to import.
        import torch
        from transformers import AutoModelForCausalLM

        from knife.models.check import check_model
        from knife.models.families import family
        from knife.models.quiet import quiet

        quiet()
        self._settings, self._prompt, self._keeper, self._spent = settings, prompt, keeper, spent
        checked = check_model(folder, "write.model")
        if family(checked.config) != "decoder":
            raise UserError(
                f"write.model: {settings.model!r} is a {checked.config.model_type!r} model, but "
                "rationales are written by a decoder-only one, such as a Llama or a Qwen"
            )
        self._tokenizer: Any = checked.tokenizer
        self._tokenizer.padding_side = "left"
        if self._tokenizer.pad_token_id is None:
            # Padding is masked, whatever it is.
            self._tokenizer.pad_token = self._tokenizer.eos_token
        self._positions = checked.positions
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype="auto", use_safetensors=True, trust_remote_code=False
        )
        self._model = model.to(self._device).eval()
        # Models of chats end with a token of their own.
        ends = model.generation_config.eos_token_id
        self._ends = {self._tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])}
        self._watch = Watch()

    def ask(
        self, requests: Sequence[Request], done: Callable[[int], None] = lambda _: None
    ) -> Outcome:
        """Ask for all answers and keep them; `done` is called with each number of requests."""
        outcome = Outcome()
        for some in _batches(requests, self._settings.in_flight):
            texts = [self._text(request) for request in some]
            # A template has them already.
            bare = self._tokenizer.chat_template is None
            ids = [self._tokenizer(text, add_special_tokens=bare).input_ids for text in texts]
            fit = [n for n in range(len(some)) if self._fits(len(ids[n]))]
            if len(fit) < len(some):
                reason = f"too long for the model's {self._positions} positions"
                outcome.failed[reason] = outcome.failed.get(reason, 0) + len(some) - len(fit)
            within = self._within_budget([len(ids[n]) for n in fit])
            outcome.stopped = USED_UP if within < len(fit) else ""
            fit = fit[:within]
            answers = self._answers([some[n] for n in fit], [ids[n] for n in fit]) if fit else []
            self._spent.release("batch", answers)
            self._keeper.keep(answers)
            outcome.answered += len(answers)
            done(len(some))
            for answer in answers:
                self._watch.look(answer)
            outcome.stopped = outcome.stopped or self._watch.stopped
            if outcome.stopped:
                break
        return outcome

    def _within_budget(self, lengths: Sequence[int]) -> int:
        """Set aside tokens for as many questions as the budget allows; return their number."""
        for count in range(len(lengths), 0, -1):
            written = count * self._settings.longest
            if self._spent.reserve("batch", sum(lengths[:count]), written):
                return count
        self._spent.reserved["batch"] = (0, 0)
        return 0

    def _text(self, request: Request) -> str:
        """Return a request as one text: by the model's own template for chats, if it has one."""
        messages = self._prompt.messages(request.example, request.kind)
        if self._tokenizer.chat_template is None:
            return "\n\n".join(message["content"] for message in messages) + "\n"
        text: str = self._tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True
        )
        return text

    def _fits(self, read: int) -> bool:
        return self._positions is None or read + self._settings.longest <= self._positions

    def _answers(self, requests: Sequence[Request], ids: list[list[int]]) -> list[Answer]:
        import torch

        settings, limit = self._settings, self._settings.longest
        inputs = self._tokenizer.pad({"input_ids": ids}, return_tensors="pt").to(self._device)
        warm = temperature_of(settings, requests[0].kind)
        drawn = {"do_sample": True, "temperature": warm} if warm else {"do_sample": False}
        # The same requests together are answered the same.
        torch.manual_seed(int("".join(request.key for request in requests), 16) % 2**63)
        with torch.no_grad():
            found = self._model.generate(
                **inputs,
                **drawn,
                max_new_tokens=limit,
                pad_token_id=self._tokenizer.pad_token_id,
            )
        answers = []
        for request, before, row in zip(requests, ids, found, strict=True):
            new = row[inputs["input_ids"].shape[1] :].tolist()
            length = next((n for n, token in enumerate(new) if token in self._ends), len(new))
            answers.append(
                Answer(
                    key=request.key,
                    text=self._tokenizer.decode(new[:length], skip_special_tokens=True).strip(),
                    finish="length" if length == limit else "stop",
                    limit=limit,
                    read=len(before),
                    written=length,
                    counted=True,
                    model=settings.model,
                    time=time.time(),
                )
            )
        return answers
