"""Tokenizers, templates and rows on which text_tokens.py is held to TRL; the templates have the forms of well-known ones.

Each template is written once, with generation tags. TRL reads it with them; text_tokens.py without them has to find the
same spans.
"""

import json
import pathlib

HERE = pathlib.Path(__file__).resolve().parent
TAGS = ("{%generation%}", "{%endgeneration%}")
DATE = "2026-02-03"
SPECIALS = {
    "llama2": ["<s>", "</s>"],
    "llama3": ["<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"],
    "llama3_2": ["<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"],
    "mistral": ["<s>", "</s>", "[INST]", "[/INST]", "[TOOL_CALLS]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]",
                "[TOOL_RESULTS]", "[/TOOL_RESULTS]"],
    "qwen2_5": ["<|endoftext|>", "<|im_end|>", "<|im_start|>"],
    "qwen3": ["<|endoftext|>", "<|im_end|>", "<|im_start|>", "<think>", "</think>"],
    "r1_llama": ["<|begin|>", "<|end|>", "<|User|>", "<|Assistant|>", "<think>", "</think>"],
    "gemma": ["<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"],
    "phi3": ["<s>", "<|endoftext|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"],
    "chatml": ["<|endoftext|>", "<|im_end|>", "<|im_start|>"],
    "zephyr": ["<s>", "</s>"],
    "gpt_oss": ["<|startoftext|>", "<|return|>", "<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|call|>"],
}  # fmt: skip
WITHOUT_BOS = ("qwen2_5", "qwen3", "chatml", "gpt_oss")


def user(text):
    return {"role": "user", "content": text}


def assistant(text, **more):
    return {"role": "assistant", "content": text, **more}


SYSTEM = {"role": "system", "content": "Be brief."}
TOOLS = [
    {
        "type": "function",
        "function": {"name": "find", "description": "looks <up>", "parameters": {"type": "object", "properties": {}}},
    }
]
CALL = {
    "role": "assistant",
    "tool_calls": [{"type": "function", "function": {"name": "find", "arguments": {"query": "Zürich & <b>"}}}],
}
CONVERSATIONS = {
    "one turn": {"messages": [user("hi  there"), assistant("yo!")]},
    "several": {"messages": [user("hi"), assistant("yo\nman"), user("<|x|>"), assistant("<b> ü </b>"), user("so"), assistant("ok")]},
    "system": {"messages": [SYSTEM, user("hi"), assistant("yo"), user("and?"), assistant("no")]},
    "tools": {
        "messages": [user("where"), CALL, {"role": "tool", "name": "find", "content": "7"}, assistant("seven"), user("a"), assistant("b")],
        "tools": TOOLS,
    },
    "thinking": {
        "messages": [
            user("hi"),
            assistant("yo", reasoning_content="a greeting"),
            user("so"),
            assistant("ok", reasoning_content="they\nask"),
        ]
    },
    "thinking inside": {"messages": [user("hi"), assistant("<think>\nhm\n</think>\n\nyo"), user("so"), assistant("<think>ah</think>ok")]},
}  # fmt: skip
TOOL_FORMS = ("llama3_2", "mistral", "qwen2_5", "qwen3", "gpt_oss")
PLAIN_ROWS = {
    "text": [{"text": "abc ü"}, {"text": "ends</s>"}, {"text": ""}],
    "prompt and completion": [
        {"prompt": "Say: ", "completion": "it"},
        {"prompt": "a", "completion": ""},
        {"prompt": "the", "completion": "n more"},
    ],
    "prompt and completion of messages": [
        {"prompt": [user("hi")], "completion": [assistant("yo")]},
        {"prompt": [SYSTEM, user("hi"), assistant("yo"), user("so")], "completion": [assistant("ok"), user("a"), assistant("b")]},
    ],
}  # fmt: skip


def conversations(form):
    """The rows that the form's template can render."""
    rows = dict(CONVERSATIONS)
    if form not in TOOL_FORMS:
        rows.pop("tools")
    if form == "gemma":
        rows.pop("system")
    return rows


def write_tokenizer(directory, form, tagged):
    """A byte-level tokenizer with the form's special tokens and its template."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {symbol: i for i, symbol in enumerate(alphabet)}
    vocab["en"] = 256  # a token that can cross the border of a prompt and its completion
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[("e", "n")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    specials = SPECIALS[form]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in specials])
    bos = specials[0]
    if form not in WITHOUT_BOS:
        tokenizer.post_processor = processors.TemplateProcessing(single=f"{bos} $A", special_tokens=[(bos, 257)])
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(directory / "tokenizer.json"))
    config = {"bos_token": bos, "eos_token": specials[1], "tokenizer_class": "PreTrainedTokenizerFast"}
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    template = (HERE / "templates" / f"{form}.jinja").read_text()
    if not tagged:
        for tag in TAGS:
            template = template.replace(tag, "")
    (directory / "chat_template.jinja").write_text(template)
    return directory
