"""Renders conversations with a tokenizer's chat template, by transformers, within limits."""

import datetime
import re

from conversations import join_parts
from input_error import InputError, TemplateRefused
from template_limits import CHARACTERS_OF_TEXT, limited_rendering

GENERATION_TAG = re.compile(r"\{%[-+]?\s*generation\s*[-+]?%\}")
PROBE = "\ue000probe\ue001"


def fix_date(text):
    """Makes strftime_now of chat templates say this ISO date."""
    from transformers.utils import chat_template_utils

    try:
        fixed = datetime.datetime.fromisoformat(text)
    except ValueError:
        raise InputError(f'template date "{text}" is not a date such as 2026-01-31') from None

    class FixedDate(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return fixed

    chat_template_utils.datetime = FixedDate


class ChatTemplate:
    """The template of a tokenizer. Every failure is TemplateRefused or InputError, with the template's place."""

    def __init__(self, tokenizer, directory):
        self._tokenizer = tokenizer
        self._directory = directory
        self._reads_parts = None

    def source(self, tools=None):
        try:
            return self._tokenizer.get_chat_template(tools=tools)
        except ValueError:
            raise InputError(
                f"{self._directory}: the tokenizer has no chat template, which messages need; use another format or "
                f"put a chat_template.jinja into the model directory"
            ) from None

    def has_generation_tags(self, tools):
        return GENERATION_TAG.search(self.source(tools)) is not None

    def render(self, messages, add_generation_prompt, where, tools=None, options=None):
        """The text of a conversation."""
        return self._apply(messages, where, tools, options, add_generation_prompt=add_generation_prompt, tokenize=False)

    def tokens_and_mask(self, messages, where, tools=None, options=None):
        """(ids, 1 for each token inside a generation tag) of a conversation."""
        result = self._apply(
            messages, where, tools, options, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
        )
        return result["input_ids"], result["assistant_masks"]

    def _apply(self, messages, where, tools, options, **how):
        self.source(tools)
        if any(isinstance(message.get("content"), list) for message in messages) and not self._handles_parts(tools):
            messages = join_parts(messages)
        return self._guarded(messages, where, tools, options, how)

    def _handles_parts(self, tools):
        """Whether the template takes content as a list of parts, not only as a text."""
        if self._reads_parts is None:
            messages = [{"role": "user", "content": [{"type": "text", "text": PROBE}]}]
            try:
                text = self._guarded(messages, "", tools, None, {"tokenize": False})
                self._reads_parts = PROBE in text and "'type'" not in text and '"type"' not in text
            except InputError:
                self._reads_parts = False
        return self._reads_parts

    def _guarded(self, messages, where, tools, options, how):
        import jinja2

        def render():
            return self._tokenizer.apply_chat_template(messages, tools=tools, **how, **(options or {}))

        try:
            result = limited_rendering(render, where)
        except jinja2.TemplateSyntaxError as error:
            raise InputError(f"{self._directory}: the chat template, line {error.lineno}: {error.message}") from None
        except (TemplateRefused, MemoryError, KeyboardInterrupt):
            raise
        except Exception as error:  # a template may end in anything
            reason = " ".join(str(error).split()) or type(error).__name__
            kind = "" if isinstance(error, jinja2.TemplateError) else f"{type(error).__name__}: "
            raise TemplateRefused(
                f"{where}: the chat template of {self._directory} refuses this conversation: {kind}{reason}"
            ) from None
        if isinstance(result, str) and len(result) > CHARACTERS_OF_TEXT:
            raise TemplateRefused(f"{where}: the chat template made a text of {len(result)} characters, which is too long")
        return result
