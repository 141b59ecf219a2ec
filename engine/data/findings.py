"""What an audit can find: a catalogue of codes, each with its severity, what it means, and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Severity = Literal["error", "warning", "hint"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "hint")
Fix = Literal[
    "drop rows", "drop duplicates", "mend encoding", "merge turns", "redact", "normalise", "cut after last answer"
]
MOST_EXAMPLES = 5


@dataclass(frozen=True, slots=True)
class Kind:
    """One entry of the catalogue."""

    severity: Severity
    title: str
    remedy: str
    fix: Fix | None = None
    """What `tunewright data convert --fix CODE` does about it, in a new file; None where nothing is safe."""


CATALOGUE: dict[str, Kind] = {
    # The file.
    "empty_file": Kind("error", "The file holds no rows", "Give a file with at least one row."),
    "unknown_format": Kind("error", "The format was not recognised",
        "Name it in the recipe (data.format), and the columns where they have other names (data.columns)."),
    "truncated_file": Kind("error", "The file ends in the middle",
        "Copy or download it again; what was readable before the break was audited."),
    "file_changed": Kind("error", "The file changed while it was read", "Wait until it is complete, then audit again."),
    "utf16": Kind("hint", "The file is UTF-16, and was read as such", "Save it as UTF-8 for other tools."),
    # Rows that cannot be read.
    "not_json": Kind("error", "A row is not JSON", "Mend or drop these rows.", "drop rows"),
    "not_object": Kind("error", "A row is not a JSON object", "Mend or drop these rows.", "drop rows"),
    "not_utf8": Kind("error", "Bytes that are not UTF-8", "Convert the file to UTF-8, or drop these rows.", "drop rows"),
    "row_too_long": Kind("error", "A row longer than 16 MiB", "Split or drop it.", "drop rows"),
    "nested_too_deeply": Kind("error", "A row is nested too deeply", "Drop it.", "drop rows"),
    "worker_ended": Kind("error", "Rows that ended the process that read them",
        "They take too much memory: split or drop them.", "drop rows"),
    "ragged_row": Kind("error", "A CSV row with more or fewer cells than the header",
        "Check the quotation marks around this row; drop it if it cannot be mended.", "drop rows"),
    # Rows that are not of the format.
    "mixed_schema": Kind("error", "Rows of another format than the rest",
        "Keep formats in files of their own; convert or drop these rows.", "drop rows"),
    "missing_field": Kind("error", "A field is missing or null", "Fill it in, or drop these rows.", "drop rows"),
    "not_text": Kind("error", "A field that should be text is not", "Write it as text, or drop these rows.", "drop rows"),
    "no_turns": Kind("error", "A conversation without turns", "Drop these rows.", "drop rows"),
    "bad_turn": Kind("error", "A turn that is not an object with role and content", "Mend or drop these rows.", "drop rows"),
    "unknown_role": Kind("error", "A role that is not known",
        "Rename it to system, user, assistant or tool, or drop these rows.", "drop rows"),
    "no_answer": Kind("error", "A conversation without a turn of the assistant",
        "There is nothing to learn in it: add the answer, or drop these rows.", "drop rows"),
    "not_supported_content": Kind("error", "Images, audio or files in a turn", "Only text is trained; drop these rows.", "drop rows"),
    "bad_label": Kind("error", "A KTO label that is not true or false", "Write true or false.", "drop rows"),
    "bad_tools": Kind("error", "Tools or tool calls that are not valid",
        "Tools are a list of JSON schemas; a call has a name and arguments that are a JSON object.", "drop rows"),
    "prompts_differ": Kind("error", "Chosen and rejected do not answer the same prompt",
        "Pair answers to one prompt only.", "drop rows"),
    # Conversations.
    "empty_answer": Kind("warning", "Answers that are empty", "Drop these rows: they teach silence.", "drop rows"),
    "empty_prompt": Kind("warning", "Prompts that are empty", "Drop these rows, or fill in the prompt.", "drop rows"),
    "roles_out_of_order": Kind("warning", "Turns in an unusual order",
        "Most templates expect user and assistant in turn, after one system turn; merge neighbours of one role.", "merge turns"),
    "no_last_answer": Kind("warning", "The last turn is not the assistant's",
        "What follows the last answer is never learned; cut it off.", "cut after last answer"),
    "unknown_tool": Kind("warning", "A call of a tool that is not declared", "Declare it in `tools`, or drop these rows.", "drop rows"),
    "tool_result_unasked": Kind("warning", "A tool's answer that no call asked for", "Add the call, or drop these rows.", "drop rows"),
    "same_answers": Kind("warning", "Chosen and rejected are the same", "Drop these rows: nothing can be learned from them.", "drop rows"),
    "one_label": Kind("warning", "All labels are the same", "KTO needs good and bad answers."),
    "answer_repeats_prompt": Kind("warning", "Answers that begin with their whole prompt",
        "Remove the prompt from the answer; the model would learn to repeat it."),
    "placeholder_answer": Kind("warning", "Answers that are placeholders, such as “TODO” or “N/A”", "Drop these rows.", "drop rows"),
    "constant_answer": Kind("warning", "Nearly all answers are the same", "A model trained on them says only that; check the column."),
    "nested_json": Kind("hint", "Fields that hold JSON as text, and were read as such", "Nothing has to be done."),
    "conflicting_answers": Kind("hint", "The same prompt with different answers",
        "Keep the best answer, unless variety is meant."),
    "template_in_text": Kind("warning", "Control words of a chat template in the text",
        "The rows were rendered before: take the unrendered ones, or train them as plain text with template none."),
    # What the model would see.
    "no_chat_template": Kind("error", "The model has no chat template",
        "Choose a named one that ends in the model's own end token (data.template = \"zephyr\"), or start from the instruct version."),
    "template_refused": Kind("error", "The chat template refuses rows",
        "Usually the order of roles or a system prompt that it does not allow; mend the rows, or choose another template.", "drop rows"),
    "template_too_slow": Kind("error", "The chat template does not come to an end", "Do not trust this model's template; name another."),
    "mask_not_provable": Kind("error", "It cannot be proved which tokens are the assistant's",
        "Set data.loss_on to \"all\" or \"last\", or choose a template that marks the assistant's turns."),
    "nothing_trained": Kind("error", "Not one token is trained",
        "Check loss_on, max_length and the roles: with no supervised token there is nothing to learn."),
    "row_not_trained": Kind("warning", "Rows in which no token is trained",
        "Raise data.max_length, or drop these rows: they cost time and teach nothing.", "drop rows"),
    "end_not_trained": Kind("warning", "The end of the answer is not trained",
        "The model would not learn to stop: use a template that closes the turn with the end token."),
    "end_unknown": Kind("warning", "The tokenizer has no end token", "Set eos_token in tokenizer_config.json."),
    "bos_doubled": Kind("warning", "Two begin tokens in a row",
        "Remove the begin token from the text; the template adds it.", "normalise"),
    "pad_is_end": Kind("hint", "Padding and end are the same token",
        "Tunewright masks padding by position, so the end is still learned; other trainers may not."),
    "system_ignored": Kind("warning", "The template leaves the system prompt out",
        "Set data.system = \"user\" to put it before the first user turn."),
    "tools_ignored": Kind("warning", "The template leaves tools or tool calls out", "Choose a template that knows tools."),
    "thinking_dropped": Kind("hint", "The template drops the thinking of earlier turns",
        "Set data.loss_on = \"last\", so that only complete turns are learned."),
    "empty_thinking_trained": Kind("hint", "Empty thinking tags are trained",
        "Right for a model that is to answer without thinking; otherwise add the thinking to the rows."),
    "unknown_tokens": Kind("warning", "Text that the tokenizer does not know", "Choose a model whose vocabulary has this language."),
    "truncated": Kind("warning", "Rows longer than the maximum length are cut",
        "Raise data.max_length to the length that keeps 99 % of the rows, or drop the long ones (data.overlong = \"drop\")."),
    "answer_cut_off": Kind("warning", "Rows whose answer lies wholly or partly behind the cut",
        "Raise data.max_length, or set data.overlong = \"drop\"."),
    "beyond_context": Kind("error", "The maximum length is more than the model's context", "Lower data.max_length."),
    # The set.
    "duplicates": Kind("warning", "Rows that are there more than once", "Drop the repeats: they are learned by heart.", "drop duplicates"),
    "near_duplicates": Kind("hint", "Rows that are nearly the same", "Look at them; templates filled in with few words teach little."),
    "validation_overlap": Kind("warning", "Training rows that are validation rows too",
        "The validation loss would flatter: drop the duplicates, or split by a key (data.validation.key)."),
    "contamination": Kind("warning", "Rows that stand in an evaluation file", "Drop them: the evaluation would be worth nothing."),
    "few_rows": Kind("hint", "Few rows", "Below 200 rows try a prompt with examples first."),
    "broken_encoding": Kind("warning", "Text that was decoded wrongly (mojibake)", "Mend it, or read the source again as UTF-8.", "mend encoding"),
    "control_characters": Kind("warning", "Control characters or terminal escapes in the text", "Remove them.", "normalise"),
    "language_mix": Kind("hint", "Answers in another language than their prompt, or several languages", "Nothing, when it is meant."),
    "secrets": Kind("warning", "What looks like keys, tokens or passwords", "Redact them: models repeat what they saw.", "redact"),
    "personal_data": Kind("hint", "What looks like addresses, telephone or card numbers of people",
        "Redact what need not be there.", "redact"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Shown:
    """One row as an example of a finding."""

    place: str
    """Where it stands, such as `line 17`."""
    detail: str
    """What is wrong there, cleaned for the terminal; secrets are masked."""
    index: int | None = None
    """The row's index among those that could be converted, from 0, for the preview; None where it could not."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something found in a data set."""

    code: str
    """A key of CATALOGUE."""
    count: int
    """How many rows it concerns (of `duplicates`: the repeats)."""
    examples: tuple[Shown, ...]
    """The first few, at most MOST_EXAMPLES."""
    severity: Severity
    """Usually the catalogue's; `escalate` says when it is another."""
    detail: str = ""
    """A sentence with figures, where there is more to say than the count."""

    @property
    def kind(self) -> Kind:
        return CATALOGUE[self.code]

    def to_json(self) -> dict[str, Any]:
        """Return what `tunewright data audit --json` prints of it."""
        return {
            "code": self.code,
            "severity": self.severity,
            "title": self.kind.title,
            "count": self.count,
            "detail": self.detail,
            "examples": [{"place": each.place, "detail": each.detail, "index": each.index} for each in self.examples],
            "remedy": self.kind.remedy,
            "fix": self.kind.fix,
        }
