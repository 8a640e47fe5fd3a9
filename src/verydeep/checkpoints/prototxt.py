"""Protocol buffers as text: Caffe's `.prototxt`, read and written."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from verydeep.basics.errors import UserError

_TOKEN = re.compile(
    r"""\s+ | \#[^\n]* | [,;]
    | (?P<name>[A-Za-z_]\w*) \s* (?P<opens>:?\s*\{|:)
    | (?P<closes>\})
    | (?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
    | (?P<word>[-+.\w]+)""",
    re.VERBOSE,
)


def parse(text: str, where: str) -> dict[str, list[Any]]:
    """Return a message: by field name the list of its values, in order.

    Numbers are int or float, `true` and `false` are bool, strings and the names of enumerations are str, nested
    messages are such dictionaries. UserError: the text is no message; the error names the line.

    Examples
    --------
    >>> parse('layer { name: "fc8" inner_product_param { num_output: 10 } }  # the last', "x")
    {'layer': [{'name': ['fc8'], 'inner_product_param': [{'num_output': [10]}]}]}
    """
    stack: list[dict[str, list[Any]]] = [{}]
    wanted: str | None = None  # the field whose value must come next
    position = 0
    while position < len(text):
        token = _TOKEN.match(text, position)
        if token is None or not _fits(token, wanted, len(stack)):
            line = text.count("\n", 0, position) + 1
            raise UserError(f"{where}: line {line} is no prototxt: {text[position : position + 20].strip()!r}")
        position = token.end()
        if token["name"] and token["opens"].endswith("{"):
            stack.append({})
            stack[-2].setdefault(token["name"], []).append(stack[-1])
        elif token["name"]:
            wanted = token["name"]
        elif token["closes"]:
            stack.pop()
        elif token["string"] or token["word"]:
            stack[-1].setdefault(str(wanted), []).append(_value(token))
            wanted = None
    if len(stack) > 1 or wanted is not None:
        raise UserError(f"{where}: ends inside a message: the file is cut off")
    return stack[0]


def _fits(token: re.Match[str], wanted: str | None, depth: int) -> bool:
    value = bool(token["string"] or token["word"])
    if wanted is not None:
        return value or token.lastgroup is None
    return not value and not (token["closes"] and depth == 1)


def _value(token: re.Match[str]) -> Any:
    if token["string"]:
        return token["string"][1:-1].replace("\\n", "\n").replace('\\"', '"').replace("\\'", "'").replace("\\\\", "\\")
    word = token["word"]
    if word in ("true", "false"):
        return word == "true"
    for number in (int, float):
        try:
            return number(word)
        except ValueError:
            continue
    return word


def render(message: Mapping[str, Any], indent: str = "") -> str:
    """Return a message as text: by field name a value or a sequence of values.

    Examples
    --------
    >>> print(render({"layer": [{"name": "relu6", "top": "fc6"}]}))
    layer {
      name: "relu6"
      top: "fc6"
    }
    """
    lines = []
    for name, given in message.items():
        for value in given if isinstance(given, Sequence) and not isinstance(given, str) else [given]:
            if isinstance(value, Mapping):
                lines += [f"{indent}{name} {{", render(value, indent + "  "), f"{indent}}}"]
            elif isinstance(value, str):
                lines.append(f'{indent}{name}: "{value}"')
            else:
                lines.append(f"{indent}{name}: {value}")
    return "\n".join(lines)
