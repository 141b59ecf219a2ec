"""Makes the starter model and its data: `python -m tunewright.starter.make`.

The text, the tokenizer and the data follow from the seed alone; the weights also depend on the device.
"""

import argparse
import json
import multiprocessing
import os
import platform
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from random import Random

import tokenizers
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn.functional import cross_entropy
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from . import corpus, language

BEGIN, END, PAD = "<|begin|>", "<|end|>", "<|pad|>"
ROLES = {"system": "<|system|>", "user": "<|user|>", "assistant": "<|assistant|>"}
SPECIAL = [PAD, BEGIN, END, *ROLES.values()]
VOCABULARY = 2048
TOKENIZER_DOCUMENTS = 40_000
LENGTH = 256
CHUNK = 128
"""How many sequences one worker makes at a time."""
QUIET = 0.2
"""The weight of the user's words in the loss: what a customer wants next is mostly chance."""

TEMPLATE = """\
{{- bos_token }}
{%- for message in messages %}
    {%- if message['role'] == 'system' %}
        {{- '<|system|>' + message['content'] + eos_token }}
    {%- elif message['role'] == 'user' %}
        {{- '<|user|>' + message['content'] + eos_token }}
    {%- elif message['role'] == 'assistant' %}
        {{- '<|assistant|>' }}
        {%- generation %}
            {{- message['content'] + eos_token }}
        {%- endgeneration %}
    {%- else %}
        {{- raise_exception('Unknown role: ' + message['role']) }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|assistant|>' }}
{%- endif %}
"""


def written(document: corpus.Document) -> str:
    """Write a document the way the model reads it; a conversation looks as the chat template makes it."""
    if isinstance(document, str):
        return BEGIN + document + END
    return BEGIN + "".join(ROLES[message["role"]] + message["content"] + END for message in document)


def make_tokenizer(seed: int, reserved: frozenset[str]) -> PreTrainedTokenizerFast:
    """Train a byte-level tokenizer, which can write any text, on the first documents."""
    rng = Random(f"tokenizer {seed}")
    drawn = (corpus.document(rng, reserved) for _ in range(TOKENIZER_DOCUMENTS))
    texts = [
        text
        for document in drawn
        for text in ([document] if isinstance(document, str) else [message["content"] for message in document])
    ]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, initial_alphabet=alphabet, special_tokens=SPECIAL, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BEGIN,
        eos_token=END,
        pad_token=PAD,
        extra_special_tokens=list(ROLES.values()),
        chat_template=TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=2 * LENGTH,
        padding_side="left",
    )


def make_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """Build the untrained model."""
    special = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=2 * LENGTH,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        **special,
    )
    model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(max_new_tokens=128, do_sample=False, **special)
    return model


class Stream:
    """The endless pre-training text as packed sequences of tokens, made ahead by other processes."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, name: str, reserved: frozenset[str], workers: int) -> None:
        # A copy, because answering a batch switches padding on in the original.
        self._tokenizer = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        self._name = name
        self._reserved = reserved
        self._workers = workers

    def chunk(self, number: int) -> torch.Tensor:
        """Make the given chunk of sequences."""
        rng = Random(f"{self._name} {number}")
        ids: list[int] = []
        while len(ids) < CHUNK * LENGTH:
            texts = [written(corpus.document(rng, self._reserved)) for _ in range(256)]
            for encoding in self._tokenizer.encode_batch_fast(texts):
                ids += encoding.ids
        return torch.tensor(ids[: CHUNK * LENGTH], dtype=torch.int16).view(CHUNK, LENGTH)

    def chunks(self, count: int) -> Iterator[torch.Tensor]:
        """Yield the first chunks in order."""
        # The tokenizer's own threads do not survive a fork, and the processes share the work anyway.
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        with multiprocessing.get_context("fork").Pool(self._workers, torch.set_num_threads, (1,)) as pool:
            for array in pool.imap(self._array, range(count)):
                yield torch.frombuffer(bytearray(array), dtype=torch.int16).view(CHUNK, LENGTH)

    def _array(self, number: int) -> bytes:
        """Make a chunk as bytes, which travel between processes without shared memory."""
        return self.chunk(number).numpy().tobytes()


def loss_of(model: LlamaForCausalLM, batch: torch.Tensor) -> torch.Tensor:
    """Give the mean loss of the next token over a batch of sequences, with little weight on the user's words."""
    logits = model(input_ids=batch, use_cache=False).logits[:, :-1]
    losses = cross_entropy(logits.flatten(0, 1).float(), batch[:, 1:].flatten(), reduction="none")
    # The special tokens have the first numbers; the last one seen at a position tells who is speaking there.
    positions = torch.arange(batch.shape[1], device=batch.device)
    speaker = batch.gather(1, torch.where(batch < len(SPECIAL), positions, 0).cummax(1).values)[:, :-1]
    weights = torch.where(speaker == SPECIAL.index(ROLES["user"]), QUIET, 1.0).flatten()
    return (losses * weights).sum() / weights.sum()


def pretrain(model: LlamaForCausalLM, stream: Stream, device: torch.device, tokens: int) -> tuple[float, int]:
    """Train the model on the stream; give the mean loss of the last steps and the number of tokens seen."""
    size = CHUNK if device.type == "cuda" else 16
    steps = max(tokens // (size * LENGTH), 20)
    warmup = min(steps // 10, 300)
    decayed = [weight for weight in model.parameters() if weight.ndim > 1]
    others = [weight for weight in model.parameters() if weight.ndim == 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}],
        lr=3e-3,
        betas=(0.9, 0.95),
        fused=True,
    )
    rate = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warmup, (steps - step) / (steps - warmup))
    )
    recent: list[torch.Tensor] = []
    started = time.perf_counter()
    with closing(stream.chunks(-(-steps * size // CHUNK))) as chunks:
        batches = (batch for chunk in chunks for batch in chunk.split(size))
        for step, batch in enumerate(islice(batches, steps), 1):
            with torch.autocast(device.type, torch.bfloat16):
                loss = loss_of(model, batch.to(device).long())
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            rate.step()
            recent = [*recent[-19:], loss.detach()]
            if step % 100 == 0 or step == steps:
                mean = torch.stack(recent).mean().item()
                print(f"step {step}/{steps}  loss {mean:.4f}  {time.perf_counter() - started:.0f} s", flush=True)
    return torch.stack(recent).mean().item(), steps * size * LENGTH


@torch.inference_mode()
def answers(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, prompts: Sequence[Sequence[language.Message]]
) -> list[str]:
    """Answer conversations greedily, a hundred at a time."""
    replies: list[str] = []
    for start in range(0, len(prompts), 100):
        inputs = tokenizer.apply_chat_template(
            [list(prompt) for prompt in prompts[start : start + 100]],
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=True,
            padding=True,
        ).to(model.device)
        outputs = model.generate(**inputs, max_new_tokens=128, do_sample=False)
        replies += tokenizer.batch_decode(outputs[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return [reply.strip() for reply in replies]


def order_of(row: language.Row) -> language.Order:
    """Read a data row's order back from its JSON."""
    record = json.loads(row["messages"][1]["content"])
    lines = tuple(language.Line(**line) for line in record["items"])
    return language.Order(record["name"], record["city"], lines, record.get("delivery"), record.get("note"))


def check(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, held_out: Sequence[language.Row], stream: Stream
) -> dict[str, float]:
    """Measure what the base knows, and that it does not know the task of the data yet."""
    given = answers(model, tokenizer, [row["messages"][:1] for row in held_out])
    prose = [answer == language.reply(order_of(row)) for answer, row in zip(given, held_out, strict=True)]
    exact = [answer == row["messages"][1]["content"] for answer, row in zip(given, held_out, strict=True)]
    rng = Random("check")
    drawn = (corpus.document(rng, frozenset()) for _ in range(600))
    talks = [talk for talk in drawn if not isinstance(talk, str) and not talk[-2]["content"].endswith("}")]
    said = answers(model, tokenizer, [talk[:-1] for talk in talks])
    right = [answer == talk[-1]["content"] for answer, talk in zip(said, talks, strict=True)]
    with torch.inference_mode():
        batch = stream.chunk(0).to(model.device).long()
        loss = torch.stack([loss_of(model, part) for part in batch.split(8)]).mean().item()
    return {
        "held_out_loss": round(loss, 4),
        "prose_reply_accuracy": sum(prose) / len(prose),
        "other_answers_accuracy": round(sum(right) / len(right), 4),
        "order_exact_match": sum(exact) / len(exact),
    }


def main() -> None:
    """Make everything under the given folder."""
    parser = argparse.ArgumentParser(description="Make the starter model and its data.")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder to write to")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--tokens", type=int, help="pre-training tokens (300 million on a GPU, 20 million on a CPU)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    started = time.perf_counter()
    device = torch.device(
        options.device if options.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    )
    tokens = options.tokens or (300_000_000 if device.type == "cuda" else 20_000_000)
    seed, folder = options.seed, options.out / "model"
    torch.manual_seed(seed)

    train, held_out = language.data(seed)
    (options.out / "data").mkdir(parents=True, exist_ok=True)
    (options.out / "data" / "train.jsonl").write_text(language.as_jsonl(train), encoding="utf-8")
    (options.out / "data" / "held_out.jsonl").write_text(language.as_jsonl(held_out), encoding="utf-8")
    for name, pairs in zip(("preferences", "held_out_preferences"), language.preferences(seed), strict=True):
        (options.out / "data" / f"{name}.jsonl").write_text(language.as_jsonl(pairs), encoding="utf-8")
    reserved = frozenset(row["messages"][0]["content"] for row in train + held_out)

    tokenizer = make_tokenizer(seed, reserved)
    tokenizer.save_pretrained(folder)
    model = make_model(tokenizer).to(device)
    workers = (os.cpu_count() or 1) if device.type == "cuda" else 1
    loss, seen = pretrain(model, Stream(tokenizer, f"pre-training {seed}", reserved, workers), device, tokens)
    trained = time.perf_counter()
    model.to(torch.bfloat16).save_pretrained(folder)

    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).to(device).eval()
    checks = check(model, tokenizer, held_out, Stream(tokenizer, f"held out {seed}", reserved, 1))
    figures = {
        "parameters": model.num_parameters(),
        "pretraining_tokens": seen,
        "training_loss": round(loss, 4),
        **checks,
        "training_seconds": round(trained - started, 1),
        "seconds": round(time.perf_counter() - started, 1),
        "seed": seed,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "cpu",
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "tokenizers": tokenizers.__version__,
        },
    }
    (options.out / "figures.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
