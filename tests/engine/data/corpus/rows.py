"""Good rows of every shape that the audit knows."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterable
from typing import Any

from .tongues import TONGUES
from .words import FACES, SNIPPETS, SYSTEM_PROMPTS, TRIPS, VERDICTS, Grammar

Row = dict[str, Any]
Line = Row | bytes
"""A row, or the bytes that stand in the file in place of one."""

GOOD_ROWS = 48


def messages(turns: Iterable[tuple[str, str]]) -> list[Row]:
    """Return turns as OpenAI writes them."""
    return [{"role": role, "content": content} for role, content in turns]


def sharegpt(turns: Iterable[tuple[str, str]]) -> list[Row]:
    """Return turns as ShareGPT writes them."""
    names = {"user": "human", "assistant": "gpt"}
    return [{"from": names.get(role, role), "value": content} for role, content in turns]


WEATHER = {
    "name": "get_forecast",
    "description": "The forecast of a city for a day",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "day": {"type": "string"}},
        "required": ["city"],
    },
}
TRAINS = {
    "name": "find_trains",
    "description": "Trains to a city",
    "parameters": {"type": "object", "properties": {"to": {"type": "string"}, "after": {"type": "integer"}}},
}
DECLARED = [{"type": "function", "function": WEATHER}, {"type": "function", "function": TRAINS}]


def tool_row(grammar: Grammar, number: int) -> Row:
    """Return a row in which the assistant calls a tool, gets its answer, and answers."""
    slots = grammar.slots()
    arguments = {"city": slots["c"], "day": slots["y"]}
    call = {"id": f"call_{number}", "type": "function", "function": {"name": "get_forecast", "arguments": arguments}}
    result = json.dumps({"sky": slots["k"], "degrees": int(slots["n"])})
    return {
        "messages": [
            {"role": "user", "content": grammar.question(slots, TRIPS)},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": f"call_{number}", "name": "get_forecast", "content": result},
            {"role": "assistant", "content": grammar.fill(grammar.random.choice(VERDICTS), slots)},
        ],
        "tools": DECLARED,
    }


def flat_tool_row(grammar: Grammar, number: int) -> Row:
    """Return the same for tables: what has no fixed shape is JSON text."""
    row = copy.deepcopy(tool_row(grammar, number))
    for turn in row["messages"]:
        for call in turn.get("tool_calls", ()):
            call["function"]["arguments"] = json.dumps(call["function"]["arguments"])
    return row | {"tools": json.dumps(row["tools"])}


def _alpaca(grammar: Grammar, number: int) -> Row:
    question, answer = grammar.exchange()
    context = grammar.answer(grammar.slots(), 3) if number % 4 == 0 else ""
    return {"instruction": question, "input": context, "output": answer}


def _preference(grammar: Grammar, number: int) -> Row:
    slots = grammar.slots()
    return {
        "prompt": grammar.question(slots),
        "chosen": grammar.answer(slots),
        "rejected": grammar.answer(grammar.slots(), 3),
    }


def _judged_chat(grammar: Grammar, number: int) -> Row:
    row = _preference(grammar, number)
    asked = ("user", row["prompt"])
    return {side: messages([asked, ("assistant", row[side])]) for side in ("chosen", "rejected")}


def _hh(grammar: Grammar, number: int) -> Row:
    row = _preference(grammar, number)
    return {side: f"\n\nHuman: {row['prompt']}\n\nAssistant: {row[side]}" for side in ("chosen", "rejected")}


def _kto(grammar: Grammar, number: int) -> Row:
    question, answer = grammar.exchange()
    return {"prompt": question, "completion": answer, "label": number % 2 == 0}


def _with_system(grammar: Grammar, number: int) -> Row:
    system = ("system", grammar.fill(grammar.random.choice(SYSTEM_PROMPTS)))
    return {"messages": messages([system, *grammar.turns(number)])}


def _factory(grammar: Grammar, number: int) -> Row:
    asked, called, told, answered = tool_row(grammar, number)["messages"]
    turns = [
        ("human", asked["content"]),
        ("function_call", json.dumps(called["tool_calls"][0]["function"])),
        ("observation", told["content"]),
        ("gpt", answered["content"]),
    ]
    return {"conversations": sharegpt(turns), "tools": json.dumps([WEATHER, TRAINS])}


def _xlam(grammar: Grammar, number: int) -> Row:
    asked, called, *_ = tool_row(grammar, number)["messages"]
    call = called["tool_calls"][0]["function"]
    return {"query": asked["content"], "tools": json.dumps([WEATHER, TRAINS]), "answers": json.dumps([call])}


def _hermes(grammar: Grammar, number: int) -> Row:
    asked, called, told, answered = tool_row(grammar, number)["messages"]
    call = json.dumps(called["tool_calls"][0]["function"])
    system = f"You may call these functions: <tools>{json.dumps([WEATHER])}</tools> Answer with JSON in a tool call."
    turns = [
        ("system", system),
        ("human", asked["content"]),
        ("gpt", f"<tool_call>\n{call}\n</tool_call>"),
        ("tool", f"<tool_response>\n{told['content']}\n</tool_response>"),
        ("gpt", answered["content"]),
    ]
    return {"conversations": sharegpt(turns)}


def _thinking(grammar: Grammar, number: int) -> Row:
    turns = messages(grammar.turns(number))
    for turn in turns:
        if turn["role"] == "assistant":
            turn["reasoning_content"] = grammar.fill("They mean {s}. {P} used {t} {m}, which took {d}.")
    return {"messages": turns}


def _code(grammar: Grammar, number: int) -> Row:
    slots = grammar.slots()
    snippet = grammar.fill(grammar.random.choice(SNIPPETS), slots)
    answer = f"{grammar.answer(slots, 2)}\n\n```\n{snippet}\n```\n\n{grammar.answer(grammar.slots(), 2)}"
    return {
        "messages": messages(
            [("user", f"Show me code about {slots['f']}: {grammar.question(slots)}"), ("assistant", answer)]
        )
    }


def _faces(grammar: Grammar, number: int) -> Row:
    question, answer = grammar.exchange()
    sample = grammar.random.sample(FACES, 2)
    return {
        "messages": messages(
            [("user", f"{question} {sample[0]}"), ("assistant", f"{answer} {sample[1]} — “naïve façade” ½ ℃")]
        )
    }


def _classes(grammar: Grammar, number: int) -> Row:
    question, answer = grammar.exchange()
    label = grammar.random.choice(("household", "garden", "sport", "music"))
    return {"prompt": f"{question} {answer}\nWhich topic is this?", "completion": label}


def _talk_of_secrets(grammar: Grammar, number: int) -> Row:
    slots = grammar.slots()
    advice = (
        "Never write a password, an API key or a token into a file; "
        "TODO lists are no place for them either. N/A is no answer."
    )
    return {
        "instruction": f"{grammar.question(slots)} And where do I keep the password?",
        "output": f"{grammar.answer(slots)} {advice}",
    }


def tongue_row(grammar: Grammar, language: str) -> Row:
    """Return a question and its answer in a language."""
    questions, answers, topics = TONGUES[language]
    pick = grammar.random
    a, b = pick.sample(topics, 2)
    asked = f"{pick.choice(questions).format(a=a, b=b)} {pick.choice(questions).format(a=b, b=a)}"
    said = [form.format(a=a, b=b) for form in pick.sample(answers, pick.randrange(3, 6))]
    return {"messages": messages([("user", asked), ("assistant", " ".join(said))])}


SHAPES: dict[str, Callable[[Grammar, int], Row]] = {
    "messages": lambda grammar, number: {"messages": messages(grammar.turns(number))},
    "messages with system": _with_system,
    "messages with thinking": _thinking,
    "messages with code": _code,
    "messages with emoji": _faces,
    "sharegpt": lambda grammar, number: {"conversations": sharegpt(grammar.turns(number))},
    "alpaca": _alpaca,
    "dolly": lambda grammar, number: {
        "instruction": (row := _alpaca(grammar, number))["instruction"],
        "context": row["input"],
        "response": row["output"],
        "category": grammar.random.choice(("open_qa", "closed_qa", "brainstorming")),
    },
    "orca": lambda grammar, number: {
        "id": f"flan.{number}",
        "system_prompt": grammar.fill(grammar.random.choice(SYSTEM_PROMPTS)) if number % 2 else "",
        "question": (row := _alpaca(grammar, number))["instruction"],
        "response": row["output"],
    },
    "prompt-completion": lambda grammar, number: dict(zip(("prompt", "completion"), grammar.exchange(), strict=True)),
    "prompt-completion of messages": lambda grammar, number: {
        "prompt": messages([("user", (pair := grammar.exchange())[0])]),
        "completion": messages([("assistant", pair[1])]),
    },
    "classes": _classes,
    "talk of secrets": _talk_of_secrets,
    "text": lambda grammar, number: {"text": grammar.answer(grammar.slots(), grammar.random.randrange(6, 11))},
    "preference": _preference,
    "preference of messages": _judged_chat,
    "preference with a prompt of messages": lambda grammar, number: {
        "prompt": (row := _judged_chat(grammar, number))["chosen"][:1],
        "chosen": row["chosen"][1:],
        "rejected": row["rejected"][1:],
    },
    "hh": _hh,
    "pairs j and k": lambda grammar, number: {
        "question": (row := _preference(grammar, number))["prompt"],
        "response_j": row["chosen"],
        "response_k": row["rejected"],
    },
    "kto": _kto,
    "kto with kto_tag": lambda grammar, number: {
        "conversations": sharegpt(grammar.turns(1)),
        "kto_tag": number % 2 == 0,
    },
    "tools": tool_row,
    "flat tools": flat_tool_row,
    "llama-factory tools": _factory,
    "xlam": _xlam,
    "hermes": _hermes,
}
for _language in TONGUES:
    SHAPES[_language] = lambda grammar, number, language=_language: tongue_row(grammar, language)


def good_rows(shape: str, seed: str, rows: int = GOOD_ROWS) -> list[Row]:
    """Return so many good rows of a shape."""
    grammar = Grammar(f"{shape}/{seed}")
    return [SHAPES[shape](grammar, number) for number in range(1, rows + 1)]
