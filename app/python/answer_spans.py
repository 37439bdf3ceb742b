"""Where the answers stand in a conversation that a chat template without generation tags has rendered.

An answer is learned from where the prompt for it ends to the end of its turn, end-of-turn marker included. Two ways:
1. The template renders piece by piece: the prompt before an answer and the conversation up to it are beginnings of the
   whole text.
2. Otherwise (thinking parts that only the last answer keeps, an end of text after the last turn only, generation prompts
   that open a thinking part) the answer's words are replaced and the conversation rendered again: what changes is the
   answer. From there the span grows to the left until the generation prompt, and to the right over the end of the turn.
"""

import os

from input_error import InputError, TemplateRefused

PROBE = "\ue000\ue001"  # no template and no data has these private characters


def _common_prefix(a, b):
    return len(os.path.commonprefix([a, b]))


def _common_suffix(a, b):
    return len(os.path.commonprefix([a[::-1], b[::-1]]))


def _replace_texts(value):
    if isinstance(value, str):
        return PROBE
    if isinstance(value, dict):
        return {PROBE: PROBE}
    if isinstance(value, list):
        return [{**part, "text": PROBE} if isinstance(part, dict) and "text" in part else part for part in value]
    return value


def _with_other_words(message):
    """The message with its words replaced; names of tools stay, since later messages may repeat them."""
    changed = dict(message)
    calls = message.get("tool_calls")
    for name in ("content", "reasoning_content", "reasoning", "thinking"):
        if message.get(name) or (name == "content" and not calls):
            changed[name] = _replace_texts(message.get(name) or "")
    if calls:
        changed["tool_calls"] = [_call_with_other_words(call) for call in calls]
    return changed


def _call_with_other_words(call):
    function = call.get("function")
    if isinstance(function, dict):
        return {**call, "function": {**function, "arguments": _replace_texts(function.get("arguments") or {})}}
    return {**call, "arguments": _replace_texts(call.get("arguments") or {})}


class AnswerSpans:
    """Finds the spans of one conversation. `render(messages, add_generation_prompt)` gives its text."""

    def __init__(self, render, markers):
        self._render = render
        self._markers = tuple(markers)  # special tokens; a boundary never lies inside one
        self._words = {}

    def find(self, messages, text, where):
        """[(begin, end)] in characters of text, ascending; one for each answer that is learned."""
        self._messages, self._text = messages, text
        self._words.clear()
        spans, seen = [], 0
        for i, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            span = self._piece_by_piece(i) or self._by_other_words(i, where)
            if span is None:  # the template leaves this answer out
                continue
            if span[0] < seen:
                raise InputError(self._ambiguous(where, i))
            seen = span[1]
            if message.get("weight") != 0:
                spans.append(span)
        return spans

    def _try(self, messages, add_generation_prompt):
        try:
            return self._render(messages, add_generation_prompt) if messages else None
        except TemplateRefused:
            return None

    def _piece_by_piece(self, i):
        before = self._try(self._messages[:i], True)
        if before is None or not self._text.startswith(before):
            return None
        after = self._try(self._messages[: i + 1], False)
        if after is None or not (after.startswith(before) and self._text.startswith(after)):
            return None
        return len(before), len(after)

    def _words_of(self, messages, text, i):
        """(begin, end) of message i's own words in the text; None where the text does not depend on them."""
        other = self._try([*messages[:i], _with_other_words(messages[i]), *messages[i + 1 :]], False)
        if other is None or other == text:
            return None
        begin = _common_prefix(text, other)
        end = len(text) - min(_common_suffix(text, other), len(text) - begin, len(other) - begin)
        return begin, end

    def _own_words(self, i):
        if i not in self._words:
            self._words[i] = self._words_of(self._messages, self._text, i)
        return self._words[i]

    def _by_other_words(self, i, where):
        other = [*self._messages[:i], _with_other_words(self._messages[i]), *self._messages[i + 1 :]]
        if self._try(other, False) is None:
            raise InputError(self._ambiguous(where, i))
        words = self._own_words(i)
        if words is None:
            return None
        floor = 0
        for j in range(i):
            end = (self._own_words(j) or (0, 0))[1]
            if end <= words[0]:
                floor = max(floor, end)
            elif self._messages[j]["role"] not in ("system", "developer"):  # those may stand anywhere
                raise InputError(self._ambiguous(where, i))
        begin, end_of_turn_before = self._begin(i, floor, words[0])
        return begin, self._end(i, words[1], end_of_turn_before)

    def _generation_prompt(self, i):
        """What a template adds to ask for answer i."""
        for messages in (self._messages[:i], [{"role": "user", "content": PROBE}]):
            asked, plain = self._try(messages, True), self._try(messages, False)
            if asked is not None and plain is not None:
                return asked[self._outside_markers(asked, _common_prefix(asked, plain)) :]
        return ""

    def _begin(self, i, floor, words_begin):
        """(begin of the answer, what ends the turn before it)."""
        header = self._text[floor:words_begin]
        at, length = self._find_prompt(header, self._generation_prompt(i))
        end_of_turn_before = header[:at]
        before = self._try(self._messages[:i], True)
        if before is not None and self._text.startswith(before) and len(before) <= words_begin:
            return len(before), end_of_turn_before[self._first_marker(end_of_turn_before) :]
        if length == 0:
            return floor + self._end_of_prompt(header, before), ""
        return floor + at + length, end_of_turn_before[self._first_marker(end_of_turn_before) :]

    def _end_of_prompt(self, header, before):
        """Where the prompt ends in a header that holds no generation prompt."""
        for length in range(len(header), 0, -1):
            if before is not None and before.endswith(header[:length]):
                return length
        return max((header.rfind(m) + len(m) for m in self._markers if m in header), default=len(header))

    def _first_marker(self, text):
        return min((text.find(marker) for marker in self._markers if marker in text), default=0)

    def _find_prompt(self, header, prompt):
        """(place, length) in the header of the longest beginning of the prompt; a part of it only where it ends well."""
        length = next((n for n in range(len(prompt), 0, -1) if prompt[:n] in header), 0)
        at = header.find(prompt[:length])
        part = prompt[:length]
        if length in (0, len(prompt)) or header.endswith(part) or part.endswith(self._markers):
            return at, length
        return 0, 0

    def _end(self, i, words_end, end_of_turn_before):
        if i + 1 == len(self._messages):
            return len(self._text)
        after = self._text[words_end:]
        upto = self._messages[: i + 1]
        text = self._try(upto, False)
        words = None if text is None else self._words_of(upto, text, i)
        if words is not None:
            tail = text[words[1] :]
            length = _common_prefix(tail, after)
            length = min(self._outside_markers(tail, length), self._outside_markers(after, length))
            if length:
                return words_end + length
        return words_end + (len(end_of_turn_before) if after.startswith(end_of_turn_before) else 0)

    def _outside_markers(self, text, position):
        """The position, or the begin of the special token that it lies inside of."""
        for marker in self._markers:
            for inside in range(1, min(len(marker), position + 1)):
                if text.startswith(marker, position - inside):
                    return position - inside
        return position

    @staticmethod
    def _ambiguous(where, i):
        return (
            f"{where}: the answer in messages[{i}] cannot be told from the rest of what the chat template renders; put "
            f"{{% generation %}} and {{% endgeneration %}} around answers in the template, or give the last answer as "
            f"completion and the messages before it as prompt"
        )
