"""Conversations as rows hold them, checked and brought to the form that chat templates expect."""

from input_error import InputError

ROLES = ("system", "developer", "user", "assistant", "tool", "function", "ipython")
ROLES_BY_SENDER = {"human": "user", "gpt": "assistant", "observation": "tool"}  # in conversations of from and value
KINDS = {type(None): "null", bool: "true or false", int: "a number", float: "a number", list: "a list", str: "a text"}


def kind_of(value):
    return KINDS.get(type(value), "an object")


def check_text(value, name, where):
    if not isinstance(value, str):
        raise InputError(f'{where}: field "{name}" must be a text, is {kind_of(value)}')
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InputError(f'{where}: field "{name}" holds half of a surrogate pair, which is not a character') from None
    return value


def _check_strings(value, name, where):
    """Every text inside a value, at any depth."""
    if isinstance(value, str):
        check_text(value, name, where)
    elif isinstance(value, dict):
        for key, item in value.items():
            _check_strings(key, name, where)
            _check_strings(item, name, where)
    elif isinstance(value, list):
        for item in value:
            _check_strings(item, name, where)


def _check_parts(parts, where):
    for part in parts:
        if isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str):
            continue
        kind = part.get("type") if isinstance(part, dict) else kind_of(part)
        raise InputError(f'{where}: a part of "content" is of type {kind}; only parts of type text can be learned')


def _check_content(message, where):
    content = message.get("content")
    if isinstance(content, list):
        _check_parts(content, where)
    elif content is None:
        spoken = message.get("tool_calls") or message["role"] == "tool"
        if "content" not in message and not spoken:
            raise InputError(f'{where}: field "content" is missing')
        if not spoken:
            check_text(content, "content", where)
    elif not (isinstance(content, (dict, str)) and (isinstance(content, str) or message["role"] == "tool")):
        check_text(content, "content", where)


def _check_calls(message, where):
    calls = message.get("tool_calls")
    if calls is None:
        return
    if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
        raise InputError(f'{where}: field "tool_calls" must be a list of objects, is {kind_of(calls)}')


def _check_message(message, where):
    if not isinstance(message, dict):
        raise InputError(f"{where}: a message must be an object with role and content, is {kind_of(message)}")
    if "role" not in message and "from" in message:
        message = {**message, "role": message["from"], "content": message.get("value")}
        del message["from"]
        message.pop("value", None)
        if isinstance(message["role"], str):
            message["role"] = ROLES_BY_SENDER.get(message["role"], message["role"])
    if "role" not in message:
        raise InputError(f'{where}: field "role" is missing')
    role = check_text(message["role"], "role", where)
    if role not in ROLES:
        senders = ", ".join(ROLES_BY_SENDER)
        raise InputError(f'{where}: role "{role}" is unknown; known are {", ".join(ROLES)}; and as "from": {senders}')
    _check_strings(message, "content", where)
    _check_content(message, where)
    _check_calls(message, where)
    weight = message.get("weight")
    if weight not in (None, 0, 1):
        raise InputError(f"{where}: weight {weight}: a message is learned (1) or not (0)")
    return message


def check_messages(fields, name, where):
    """The messages of a field, each with role and content."""
    messages = fields.get(name)
    if messages is None:
        raise InputError(f'{where}: field "{name}" is missing')
    if not isinstance(messages, list) or not messages:
        raise InputError(f'{where}: field "{name}" must be a list of messages')
    return [_check_message(message, f"{where}: {name}[{i}]") for i, message in enumerate(messages)]


def check_tools(fields, where):
    """The tools of a row, as a list of JSON schemas; None where it has none."""
    tools = fields.get("tools")
    if tools is None:
        return None
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise InputError(f'{where}: field "tools" must be a list of JSON schemas, is {kind_of(tools)}')
    _check_strings(tools, "tools", where)
    return tools


def check_template_options(fields, where):
    """chat_template_kwargs of a row: further variables of the template."""
    options = fields.get("chat_template_kwargs")
    if options is None:
        return {}
    if not isinstance(options, dict):
        raise InputError(f'{where}: field "chat_template_kwargs" must be an object, is {kind_of(options)}')
    taken = {"messages", "tools", "documents", "add_generation_prompt", "tokenize", "return_dict", "conversation"}
    for name in options:
        if name in taken:
            raise InputError(f'{where}: chat_template_kwargs cannot set "{name}"')
    _check_strings(options, "chat_template_kwargs", where)
    return options


def join_parts(messages):
    """The same messages with each list of text parts as one text."""
    return [
        {**message, "content": "".join(part["text"] for part in message["content"])}
        if isinstance(message.get("content"), list)
        else message
        for message in messages
    ]
