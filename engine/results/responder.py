"""The chat's child: answers each prompt as the base model, then as the tuned one, piece by piece.

`python -m tunewright.engine.results.responder RUN_DIRECTORY`; JSON lines on stdin and stdout.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...recipes.model import LoraMethod
from ..data.examples import Message
from ..data.rendering import Renderer
from ..runs.directory import RunDirectory
from ..runs.pinned import pinned_recipe
from ..sources import find_weights

MAX_NEW_TOKENS = 512


def main(arguments: list[str]) -> int:
    """Answer until stdin ends."""
    # Libraries print to stdout while they load; the protocol keeps its own copy of it.
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def send(side: str, text: str) -> None:
        channel.write(json.dumps({"side": side, "text": text}) + "\n")
        channel.flush()

    run = RunDirectory(Path(arguments[0]))
    recipe, plan = pinned_recipe(run), run.plan()
    folder = find_weights(recipe.base.model, recipe.base.revision)
    from ..training.tokenizer import load_tokenizer
    from ..training.transformers import load_base

    tokenizer = load_tokenizer(folder)
    base: Any = load_base(recipe, plan, folder)
    if isinstance(recipe.method, LoraMethod):
        from peft import PeftModel

        tuned: Any = PeftModel.from_pretrained(base, str(run.adapter))
        as_base = tuned.disable_adapter
    else:
        tuned = load_base(recipe, plan, run.model)
        as_base = contextlib.nullcontext
    renderer = Renderer(folder, recipe.data)
    histories: dict[str, list[Message]] = {"base": [], "tuned": []}
    send("end", "ready")
    for line in sys.stdin:
        prompt = Message("user", str(json.loads(line)["prompt"]))
        for side, model in (("base", base if as_base is contextlib.nullcontext else tuned), ("tuned", tuned)):
            history = histories[side]
            history.append(prompt)
            with as_base() if side == "base" else contextlib.nullcontext():
                text = _stream(model, tokenizer, renderer, history, lambda piece, side=side: send(side, piece))
            history.append(Message("assistant", text))
        send("end", "")
    return 0


def _stream(
    model: Any, tokenizer: Any, renderer: Renderer, history: list[Message], on_text: Callable[[str], None]
) -> str:
    """Return the greedy answer to `history`, telling each piece as it comes."""
    from transformers import TextIteratorStreamer

    from .evaluate import answering

    encoded = tokenizer(renderer.prompt(history), return_tensors="pt", add_special_tokens=False).to(model.device)
    streamer: Any = TextIteratorStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)

    def generate() -> None:
        with answering(model):
            model.generate(
                input_ids=encoded["input_ids"],
                attention_mask=encoded["attention_mask"],
                max_new_tokens=MAX_NEW_TOKENS,
                do_sample=False,
                use_cache=True,
                eos_token_id=renderer.end_tokens,
                pad_token_id=tokenizer.pad_token_id,
                streamer=streamer,
            )

    thread = threading.Thread(target=generate, daemon=True)
    thread.start()
    pieces: list[str] = []
    for piece in streamer:
        pieces.append(piece)
        if piece:
            on_text(piece)
    thread.join()
    return "".join(pieces)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
