"""What a row of each data set format looks like as text, and which part of it is learned."""

import dataclasses
import json
import pathlib

KINDS = {type(None): "null", bool: "true or false", int: "a number", float: "a number", list: "a list"}


class InputError(Exception):
    """Wrong input; the message names file and place."""


@dataclasses.dataclass
class Row:
    text: str
    learned: list  # [(begin, end)] in characters of text, ascending
    prefix_ids: tuple = ()  # before the text; never learned
    suffix_ids: tuple = ()  # after it; learned


def detect_format(fields, text_field, where):
    """The format whose fields a row has."""
    if "messages" in fields:
        return "messages"
    if "prompt" in fields and "completion" in fields:
        return "prompt_completion"
    if "instruction" in fields and "output" in fields:
        return "alpaca"
    if text_field in fields:
        return "text"
    raise InputError(
        f"{where}: no known format has the fields {', '.join(fields) or '(none)'}; expected instruction and output "
        f"(alpaca), prompt and completion, messages, or {text_field}"
    )


def text_of(fields, name, where, default=None):
    value = fields.get(name, default)
    if value is None and name not in fields:
        raise InputError(f'{where}: field "{name}" is missing')
    if value is None and default is not None:
        value = default  # "input": null is as good as none
    if not isinstance(value, str):
        raise InputError(f'{where}: field "{name}" must be a text, is {KINDS.get(type(value), "an object")}')
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InputError(f'{where}: field "{name}" holds half of a surrogate pair, which is not a character') from None
    return value


def alpaca_prompt(instruction, input_text):
    """Without an input its section is left out."""
    section = f"### Input:\n{input_text}\n\n" if input_text else ""
    return f"### Instruction:\n{instruction}\n\n{section}### Response:\n"


class Renderer:
    """Turns rows into text with the special tokens and the chat template of a model directory."""

    def __init__(self, tokenizer, directory, text_field, completion_only_loss):
        self._directory = pathlib.Path(directory)
        self._config = self._read_config()
        self._tokenizer = tokenizer
        self._text_field = text_field
        self._completion_only_loss = completion_only_loss
        self._bos = self._special("bos_token")
        self._eos = self._special("eos_token")
        self._template = None

    def render(self, fields, row_format, where):
        if row_format == "messages":
            return self._messages(self._check_messages(fields, "messages", where), where)
        if row_format == "text":
            return self._plain("", text_of(fields, self._text_field, where))
        if row_format == "alpaca":
            instruction = text_of(fields, "instruction", where)
            prompt = alpaca_prompt(instruction, text_of(fields, "input", where, default=""))
            return self._plain(prompt, text_of(fields, "output", where))
        if isinstance(fields.get("prompt"), list):
            messages = self._check_messages(fields, "prompt", where) + self._check_messages(fields, "completion", where)
            return self._messages(messages, where)
        return self._plain(text_of(fields, "prompt", where), text_of(fields, "completion", where))

    def render_prompt(self, request):
        """A prompt to go on from: {"prompt"}, {"instruction", "input"} or {"messages"}."""
        if "messages" in request:
            text = self._apply_template(self._check_messages(request, "messages", "prompt"), True, "prompt")
            return Row(text, [], self._bos_before(text))
        if "instruction" in request:
            text = alpaca_prompt(request["instruction"], request.get("input", ""))
        else:
            text = request["prompt"]
        return Row(text, [], self._bos_before(text))

    def stop_ids(self):
        """Tokens that end a text: eos of the tokenizer and those of generation_config.json and config.json."""
        ids = set(self._id_of(self._eos))
        for name in ("generation_config.json", "config.json"):
            path = self._directory / name
            value = _read_json(path).get("eos_token_id") if path.is_file() else None
            ids.update(value if isinstance(value, list) else [] if value is None else [value])
        return sorted(ids)

    def _plain(self, prompt, completion):
        text = prompt + completion
        begin = len(prompt) if self._completion_only_loss else 0
        ends_already = self._eos is not None and text.endswith(self._eos)
        return Row(text, [(begin, len(text))], self._bos_before(text), () if ends_already else self._id_of(self._eos))

    def _messages(self, messages, where):
        text = self._apply_template(messages, False, where)
        if not self._completion_only_loss:
            return Row(text, [(0, len(text))], self._bos_before(text))
        learned = []
        for i, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            before = self._apply_template(messages[:i], True, where)
            after = self._apply_template(messages[: i + 1], False, where)
            if not (after.startswith(before) and text.startswith(after)):
                raise InputError(
                    f"{where}: the chat template does not render a conversation piece by piece, so its answers cannot "
                    f"be told from the rest; set dataset.completion_only_loss: false"
                )
            learned.append((len(before), len(after)))
        return Row(text, learned, self._bos_before(text))

    def _bos_before(self, text):
        starts_already = self._bos is not None and text.startswith(self._bos)
        return () if starts_already else self._id_of(self._bos)

    def _check_messages(self, fields, name, where):
        messages = fields.get(name)
        if messages is None:
            raise InputError(f'{where}: field "{name}" is missing')
        if not isinstance(messages, list) or not messages:
            raise InputError(f'{where}: field "{name}" must be a list of messages')
        for message in messages:
            if not isinstance(message, dict):
                raise InputError(f'{where}: field "{name}": a message must be an object with role and content')
            text_of(message, "role", f"{where}: {name}")
            text_of(message, "content", f"{where}: {name}")
        return messages

    def _apply_template(self, messages, add_generation_prompt, where):
        import jinja2

        try:
            return self._compiled_template().render(
                messages=messages,
                add_generation_prompt=add_generation_prompt,
                bos_token=self._bos or "",
                eos_token=self._eos or "",
            )
        except jinja2.TemplateError as error:
            raise InputError(f"{where}: the chat template refuses this conversation: {error}") from None

    def _compiled_template(self):
        if self._template is None:
            import jinja2
            from jinja2.sandbox import ImmutableSandboxedEnvironment

            def raise_exception(message):
                raise jinja2.TemplateError(message)

            environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
            environment.globals["raise_exception"] = raise_exception
            self._template = environment.from_string(self._template_source())
        return self._template

    def _template_source(self):
        path = self._directory / "chat_template.jinja"
        if path.is_file():
            return path.read_text(encoding="utf-8")
        source = self._config.get("chat_template")
        if isinstance(source, list):  # named ones
            source = {entry["name"]: entry["template"] for entry in source}.get("default")
        if source is None:
            raise InputError(
                f"{self._directory}: the tokenizer has no chat template, which messages need; use another format or "
                f"put a chat_template.jinja into the model directory"
            )
        return source

    def _read_config(self):
        path = self._directory / "tokenizer_config.json"
        return _read_json(path) if path.is_file() else {}

    def _special(self, name):
        if name == "bos_token" and self._config.get("add_bos_token") is False:
            return None
        value = self._config.get(name)
        return value.get("content") if isinstance(value, dict) else value

    def _id_of(self, token):
        if token is None:
            return ()
        token_id = self._tokenizer.token_to_id(token)
        if token_id is None:
            raise InputError(f"{self._directory}: tokenizer.json lacks the special token {token}")
        return (token_id,)


def _read_json(path):
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON: {error}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected an object")
    return content
