"""What one row can have wrong: pure functions from an example or its rendered tokens to the codes of findings."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence

from ....foundation.text import one_line
from ....recipes.model import Data
from ..examples import Conversation, Example, Message
from .encodings import broken_encoding, control_characters
from .patterns import Match, scan

Found = tuple[str, str]
"""A code of `findings.CATALOGUE` and what is wrong here, in a few words that are clean for the terminal."""

_SHOWN = 80
"""Characters of a text that a detail quotes."""
_LEAST_REPEATED = 16
"""A prompt shorter than this is not taken for repeated when an answer begins with it: greetings do."""
_PLACEHOLDERS = re.compile(
    r"(?:(?:todo|tbd|tba|fixme|n/?a|nan|null|undefined|placeholder)[.!:]?|lorem ipsum.*|x{3,}|\.{2,}|…|-{2,}|_{2,}"
    r"|\W?(?:insert|enter|add|put|write|your|the)?\s*(?:an |the |your )?(?:answer|response|output|completion|text)"
    r"(?: goes)?(?: here)\W*|[\[<{(]+\s*(?:answer|response|output|completion|assistant|text)\s*[\]>})]+)",
    re.IGNORECASE | re.DOTALL,
)
_NOTHING = frozenset({"None", "NULL", "Null", "NaN", "nil"})
"""What programs write for a value that was not there."""
_LONGEST_PLACEHOLDER = 60
_CONTROL_WORDS = re.compile(
    r"<\|(?:im_start|im_end|im_sep|start_header_id|end_header_id|eot_id|eom_id|begin_of_text|end_of_text|endoftext"
    r"|system|user|assistant|end|endofturn|END_OF_TURN_TOKEN|START_OF_TURN_TOKEN|message|channel|return|tool_calls?_begin"
    r"|start_of_role|end_of_role|header_start|header_end|eot)\|>"
    r"|\[/?INST\]|<</?SYS>>|</?start_of_turn>|<end_of_turn>|<｜[^｜\n]{1,40}｜>"
    r"|^\s*<s>|</s>\s*$|<s>\s*\[INST\]"
)
_PROSE_TURNS = (
    (
        re.compile(r"^#{2,3} ?(?:Instruction|Human|User|Input):?\s*$", re.M),
        re.compile(r"^#{2,3} ?(?:Response|Assistant|Output):?", re.M),
    ),
    (re.compile(r"^(?:USER|User|Human|HUMAN): ", re.M), re.compile(r"^(?:ASSISTANT|Assistant|AI|GPT): ", re.M)),
)
"""Templates whose control words are prose: only both sides of a conversation in one turn are taken for one."""
_CONTROL_STARTS = ("<|", "[INST]", "[/INST]", "<<", "_of_turn>", "<｜", "<s>", "</s>")
_PROSE_STARTS = ("###", "USER:", "User:", "Human:", "HUMAN:")
_CALLS_IN_TEXT = ("<tool_call", "[TOOL_CALLS]", "<|python_tag|>", "<function", "```tool", "functools", "Action:")
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_EMPTY_THINKING = re.compile(r"<(think|thinking|reasoning|thought)>\s*</\1>")
_LOOKED_FOR = 60
"""So many characters of a text are looked for in what the template made of it."""
_END_REACH = 3
"""The end token may be followed by so many more learned tokens, such as a line's end after it."""


def check(example: Example) -> list[Found]:
    """Return what is wrong with the turns of one example."""
    found: list[Found] = []
    if example.kind == "text":
        if not example.text.strip():
            found.append(("empty_answer", "the text is empty"))
        return found
    messages = example.messages
    answers = answers_of(example)
    if not answers:
        found.append(("no_answer", "no turn of the assistant"))
    elif any(_is_empty(each) for each in answers):
        found.append(("empty_answer", _empty_place(example)))
    elif any(_is_placeholder(each) for each in answers):
        text = next(each.content for each in answers if _is_placeholder(each))
        found.append(("placeholder_answer", f"the answer is “{one_line(text, _SHOWN)}”"))
    found += _check_prompt(example)
    found += _check_order(messages)
    if example.kind == "preference":
        found += _check_pair(example)
    if example.tools or any(each.tool_calls or each.role == "tool" for each in messages):
        found += _check_tools(example)
    return found


def answers_of(example: Example) -> Conversation:
    """Return the turns that are to be learned from: the assistant's, of a preference the rejected ones too."""
    turns = example.messages[example.prompt_turns :] if example.kind in ("preference", "kto") else example.messages
    return tuple(each for each in (*turns, *example.rejected) if each.role == "assistant")


def group_words(words: Collection[str]) -> dict[str, tuple[str, ...]]:
    """Return control words by their first two characters: of hundreds only those are looked for whose start is there."""
    groups: dict[str, tuple[str, ...]] = {}
    for word in words:
        groups[word[:2]] = (*groups.get(word[:2], ()), word)
    return groups


def check_text(example: Example, text: str, special: Mapping[str, Sequence[str]] | None = None) -> list[Found]:
    """Return what is wrong with the characters of an example; `text` is all of it, joined.

    `special` are the control words of the model itself, as `group_words` gives them.
    """
    found: list[Found] = []
    if any(start in text for start in _CONTROL_STARTS) or any(start in text for start in _PROSE_STARTS):
        word = _control_word(example)
        if word:
            found.append(("template_in_text", f"“{one_line(word, 40)}” in the text"))
    if not found and special:
        word = next((each for start, words in special.items() if start in text for each in words if each in text), None)
        if word:
            found.append(("template_in_text", f"“{one_line(word, 40)}”, a control word of this model, in the text"))
    if control_characters(text):
        found.append(("control_characters", _show_control(text)))
    broken = broken_encoding(text)
    if broken is not None:
        found.append(("broken_encoding", f"“{broken}”"))
    return found + _check_patterns(text)


def _show_control(text: str) -> str:
    hit = _CONTROL.search(text)
    if hit is None:
        return "characters that reorder text"
    around = one_line(text[max(0, hit.start() - 20) : hit.start() + 40], _SHOWN)
    return f"character 0x{ord(hit.group()):02x} near “{around}”"


def _check_patterns(text: str) -> list[Found]:
    matches = scan(text)
    if not matches:
        return []
    kinds: dict[str, list[Match]] = {}
    for each in matches:
        kinds.setdefault(each.code, []).append(each)
    return [
        (code, f"{', '.join(dict.fromkeys(each.kind for each in of_code))}: {of_code[0].masked}")
        for code, of_code in kinds.items()
    ]


def _control_word(example: Example) -> str | None:
    """Return the first control word of a known chat template in a turn, or in plain text."""
    texts = (
        [example.text] if example.kind == "text" else [each.content for each in (*example.messages, *example.rejected)]
    )
    for text in texts:
        hit = _CONTROL_WORDS.search(text)
        if hit:
            return hit.group().strip()
        for asking, answering in _PROSE_TURNS:
            hit = asking.search(text)
            if hit and answering.search(text, hit.end()):
                return hit.group().strip()
    return None


def _is_empty(message: Message) -> bool:
    return not message.tool_calls and not message.content.strip()


def _is_placeholder(message: Message) -> bool:
    text = message.content
    if len(text) > _LONGEST_PLACEHOLDER and not text[:12].lower().startswith("lorem ipsum"):
        return False
    text = text.strip()
    return not message.tool_calls and (text in _NOTHING or _PLACEHOLDERS.fullmatch(text) is not None)


def _empty_place(example: Example) -> str:
    if example.kind == "preference" and any(_is_empty(each) for each in example.rejected):
        return "the rejected answer is empty"
    turn = next((index for index, each in enumerate(example.messages, 1) if _is_empty(each)), 0)
    return f"turn {turn} has no content"


def _check_prompt(example: Example) -> Iterator[Found]:
    before: Message | None = None
    empty = repeated = False
    for turn, message in enumerate(example.messages, 1):
        if message.role == "user" and not empty and not message.content.strip():
            empty = True
            yield "empty_prompt", f"turn {turn} has no content"
        elif message.role == "assistant" and before is not None and before.role == "user" and not repeated:
            prompt = before.content.strip()
            if len(prompt) >= _LEAST_REPEATED and len(message.content) > len(prompt):
                repeated = message.content.lstrip().startswith(prompt)
                if repeated:
                    yield "answer_repeats_prompt", f"turn {turn} begins with “{one_line(prompt[:400], _SHOWN)}”"
        before = message


_FOLLOWS = {
    "start": frozenset({"system", "user"}),
    "system": frozenset({"user"}),
    "user": frozenset({"assistant"}),
    "assistant": frozenset({"user"}),
    "calling": frozenset({"tool"}),
    "tool": frozenset({"tool", "assistant"}),
}
"""Which roles may follow which; `calling` is the assistant's turn that calls tools."""


def _check_order(messages: Conversation) -> Iterator[Found]:
    before = "start"
    for turn, message in enumerate(messages, 1):
        role = message.role
        if role not in _FOLLOWS[before] and not (before == "assistant" and role == "tool"):
            after = "at the start" if before == "start" else f"after {'assistant' if before == 'calling' else before}"
            yield "roles_out_of_order", f"turn {turn} is {role} {after}"
            break
        before = "calling" if role == "assistant" and message.tool_calls else role
    if messages and messages[-1].role != "assistant" and any(each.role == "assistant" for each in messages):
        yield "no_last_answer", f"the last turn is {messages[-1].role}"


def _check_pair(example: Example) -> Iterator[Found]:
    chosen = example.messages[example.prompt_turns :]
    if chosen == example.rejected:
        yield "same_answers", "chosen and rejected are the same"


def _check_tools(example: Example) -> Iterator[Found]:
    names = {_tool_name(each) for each in example.tools}
    told = "" if names else "\n".join(each.content for each in example.messages if each.role == "system")
    unknown = unasked = False
    open_calls = 0
    ids: set[str] = set()
    for turn, message in enumerate((*example.messages, *example.rejected), 1):
        for call in message.tool_calls:
            if not unknown and call.name not in names and not (told and call.name in told):
                unknown = True
                yield "unknown_tool", f"turn {turn} calls {one_line(call.name, _SHOWN)}"
        if message.role == "assistant":
            open_calls = len(message.tool_calls) or sum(map(message.content.count, _CALLS_IN_TEXT))
            ids.update(call.id for call in message.tool_calls if call.id)
        elif message.role == "tool" and not unasked:
            unasked = not open_calls or bool(message.call_id and ids and message.call_id not in ids)
            if unasked:
                yield "tool_result_unasked", f"turn {turn} answers no call"


def _tool_name(tool: dict[str, object]) -> str:
    function = tool.get("function", tool)
    return str(function.get("name", "") if isinstance(function, dict) else "")  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]


def check_ids(
    ids: Sequence[int],
    learned: Sequence[tuple[int, int]],
    kept: int,
    ends: Collection[int],
    begin: int | None,
    unknown: int | None,
) -> list[Found]:
    """Return what is wrong with a row's whole token ids, whose `learned` spans are [start, end) and of which `kept` stay."""
    found: list[Found] = []
    if begin is not None and ids[:2] == [begin, begin]:
        found.append(("bos_doubled", "two begin tokens at the start"))
    if unknown is not None and unknown in ids:
        found.append(("unknown_tokens", f"{ids.count(unknown):,} of {len(ids):,} tokens are unknown"))
    length = len(ids)
    if ends:
        for start, end in learned:
            if end <= kept and ends.isdisjoint(ids[max(start, end - _END_REACH) : end]):  # pyright: ignore
                found.append(
                    ("end_not_trained", f"the learned tokens up to {end:,} of {length:,} end without an end token")
                )
                break
    first = learned[0][0] if learned else None
    if length > kept:
        found.append(("truncated", f"{length:,} tokens, {length - kept:,} more than are kept"))
        if learned and learned[-1][1] > kept:
            found.append(
                (
                    "answer_cut_off",
                    f"{sum(max(0, end - max(start, kept)) for start, end in learned):,} learned tokens lie behind the cut",
                )
            )
    if first is None or first >= kept:
        found.append(
            ("row_not_trained", "no token is learned" if first is None else "the first answer begins behind the cut")
        )
    return found


def check_rendered(example: Example, text: str, learned: Sequence[tuple[int, int]], data: Data) -> list[Found]:
    """Return what a chat template did to an example of which it made `text`, whose `learned` characters are [start, end)."""
    found: list[Found] = []
    messages = example.messages
    if data.system == "keep":
        for message in messages:
            if message.role == "system" and (shown := message.content.strip()[:_LOOKED_FOR]) and shown not in text:
                found.append(("system_ignored", f"“{one_line(shown, _SHOWN)}” is not in what the model reads"))
                break
    missing = [_tool_name(tool) for tool in example.tools if _tool_name(tool) not in text]
    missing += [call.name for message in messages for call in message.tool_calls if call.name not in text]
    if missing:
        found.append(("tools_ignored", f"{one_line(missing[0], _SHOWN)} is not in what the model reads"))
    if data.thinking == "keep":
        for message in messages:
            thought = thinking_of(message)
            if thought and thought[:_LOOKED_FOR] not in text:
                found.append(("thinking_dropped", f"“{one_line(thought[:_LOOKED_FOR], _SHOWN)}” is left out"))
                break
    if "<think" in text or "<reason" in text or "<thought" in text:
        for start, end in learned:
            if _EMPTY_THINKING.search(text, start, end):
                found.append(("empty_thinking_trained", "empty thinking tags are learned"))
                break
    return found


def thinking_of(message: Message) -> str:
    """Return the reasoning before an answer, kept apart or in tags within the content; empty where there is none."""
    if message.thinking:
        return message.thinking.strip()
    if message.role != "assistant" or "</think>" not in message.content:
        return ""
    return message.content.partition("</think>")[0].rpartition("<think>")[2].strip()
