"""What a row of each data set format looks like as text, and which part of it is learned."""

import dataclasses

from answer_spans import AnswerSpans
from conversations import check_messages, check_template_options, check_text, check_tools
from input_error import InputError

USED_COLUMNS = {
    "messages": ("messages", "conversations", "tools", "chat_template_kwargs"),
    "prompt_completion": ("prompt", "completion", "tools", "chat_template_kwargs"),
    "alpaca": ("instruction", "input", "output"),
    "text": (),
}
UNLEARNABLE_COLUMNS = ("images", "image", "videos", "audio", "chosen", "rejected")


@dataclasses.dataclass
class Row:
    """A row as text. What is learned: the whole; or what follows `prompt`; or `spans`; or `mask`, where `ids` are given."""

    text: str = ""
    is_plain: bool = True  # the tokenizer may add special tokens; a chat template has written its own
    prompt: str | None = None
    spans: list | None = None  # [(begin, end)] in characters of text, ascending
    ids: list | None = None
    mask: list | None = None


def detect_format(fields, text_field, where):
    """The format whose fields a row has."""
    if "messages" in fields or "conversations" in fields:
        return "messages"
    if "prompt" in fields and "completion" in fields:
        return "prompt_completion"
    if "instruction" in fields and "output" in fields:
        return "alpaca"
    if text_field in fields:
        return "text"
    raise InputError(
        f"{where}: no known format has the fields {', '.join(fields) or '(none)'}; expected instruction and output "
        f"(alpaca), prompt and completion, messages, conversations, or {text_field}; dataset.columns gives others these "
        f"names"
    )


def rename_columns(fields, columns, where):
    """Fields under the names that the formats know; columns: {known name: name in the file}."""
    if not columns:
        return fields
    renamed = {name: value for name, value in fields.items() if name not in columns.values()}
    for known, name in columns.items():
        if name not in fields:
            raise InputError(f'{where}: there is no "{name}", which dataset.columns asks for as {known}')
        renamed[known] = fields[name]
    return renamed


def text_of(fields, name, where, default=None):
    value = fields.get(name, default)
    if value is None and name not in fields:
        raise InputError(f'{where}: field "{name}" is missing')
    if value is None and default is not None:
        value = default  # "input": null is as good as none
    return check_text(value, name, where)


def alpaca_prompt(instruction, input_text):
    """Without an input its section is left out."""
    section = f"### Input:\n{input_text}\n\n" if input_text else ""
    return f"### Instruction:\n{instruction}\n\n{section}### Response:\n"


def unused_columns(fields, row_format, text_field):
    """Columns that change nothing. Throws for those that would have to change something."""
    for name in UNLEARNABLE_COLUMNS:
        if fields.get(name):
            raise InputError(f'column "{name}" cannot be learned from here; leave it out of the data set')
    return [name for name in fields if name not in (*USED_COLUMNS[row_format], text_field)]


class Renderer:
    """Turns rows into text with the special tokens and the chat template of a tokenizer."""

    def __init__(self, tokenizer, template, text_field="text", completion_only_loss=True):
        self._template = template
        self._text_field = text_field
        self._completion_only_loss = completion_only_loss
        self._eos = tokenizer.eos_token or ""
        self._markers = list(tokenizer.get_added_vocab())

    def render(self, fields, row_format, where):
        if row_format == "messages":
            name = "messages" if "messages" in fields else "conversations"
            return self._messages(check_messages(fields, name, where), fields, where)
        if row_format == "text":
            return self._plain("", text_of(fields, self._text_field, where))
        if row_format == "alpaca":
            instruction = text_of(fields, "instruction", where)
            prompt = alpaca_prompt(instruction, text_of(fields, "input", where, default=""))
            return self._plain(prompt, text_of(fields, "output", where))
        if isinstance(fields.get("prompt"), list):
            prompt = check_messages(fields, "prompt", where)
            return self._prompt_and_answer(prompt, check_messages(fields, "completion", where), fields, where)
        return self._plain(text_of(fields, "prompt", where), text_of(fields, "completion", where))

    def render_prompt(self, request, where):
        """A prompt to go on from: {"prompt"} as text or messages, {"instruction", "input"} or {"messages"}."""
        if "instruction" in request:
            instruction = text_of(request, "instruction", where)
            return Row(alpaca_prompt(instruction, text_of(request, "input", where, default="")))
        if "prompt" in request and not isinstance(request["prompt"], list):
            return Row(text_of(request, "prompt", where))
        name = next((name for name in ("prompt", "messages", "conversations") if name in request), None)
        if name is None:
            raise InputError(f"{where}: expected prompt, instruction or messages, got {', '.join(request) or '(nothing)'}")
        messages = check_messages(request, name, where)
        if messages[-1]["role"] == "assistant":
            raise InputError(f"{where}: the last message is the assistant's; leave out the answer that is to be generated")
        return Row(self._rendered(messages, True, request, where), is_plain=False)

    def _plain(self, prompt, completion):
        end = "" if completion.endswith(self._eos) else self._eos
        learns_all = not self._completion_only_loss or prompt == ""
        return Row(prompt + completion + end, prompt=None if learns_all else prompt)

    def _rendered(self, messages, add_generation_prompt, fields, where):
        return self._template.render(
            messages, add_generation_prompt, where, check_tools(fields, where), check_template_options(fields, where)
        )

    def _prompt_and_answer(self, prompt, answer, fields, where):
        row = Row(self._rendered(prompt + answer, False, fields, where), is_plain=False)
        if self._completion_only_loss:
            row.prompt = self._rendered(prompt, True, fields, where)
        return row

    def _messages(self, messages, fields, where):
        tools, options = check_tools(fields, where), check_template_options(fields, where)
        if not self._completion_only_loss:
            return Row(self._template.render(messages, False, where, tools, options), is_plain=False)
        if self._template.has_generation_tags(tools):
            return self._tagged(messages, where, tools, options)
        text = self._template.render(messages, False, where, tools, options)

        def render(some, add_generation_prompt):
            return self._template.render(some, add_generation_prompt, where, tools, options)

        return Row(text, is_plain=False, spans=AnswerSpans(render, self._markers).find(messages, text, where))

    def _tagged(self, messages, where, tools, options):
        if any(message.get("weight") is not None for message in messages):
            raise InputError(f"{where}: messages have a weight, but the chat template marks answers by generation tags")
        ids, mask = self._template.tokens_and_mask(messages, where, tools, options)
        if not any(mask) and any(message["role"] == "assistant" for message in messages):
            raise InputError(f"{where}: the chat template's generation tags mark no token of this conversation")
        return Row(is_plain=False, ids=ids, mask=mask)
