"""Shows `name: what it is` of our docstrings as lists in the reference, an argument a line."""

from __future__ import annotations

import re

from griffe import Class, Docstring, Extension, Function, Object

ITEM = re.compile(r"((?:`?\w+`?)(?:, `?\w+`?)*): (?=\S)")
SPLIT = re.compile(r"(?<=[.;] )(?=(\w+(?:, \w+)*): \S)")


class Lists(Extension):
    """Turns each paragraph that starts with such a line into a list; other paragraphs stay."""

    def on_object(self, *, obj: Object, **_: object) -> None:
        """Called by griffe for each object that it has loaded."""
        if obj.docstring is not None:
            names = names_of(obj)
            paragraphs = obj.docstring.value.split("\n\n")
            obj.docstring = Docstring(
                "\n\n".join(as_list(paragraph, names) for paragraph in paragraphs),
                parent=obj,
                parser=obj.docstring.parser,
                parser_options=obj.docstring.parser_options,
            )


def names_of(obj: Object) -> set[str]:
    """Names of an object's arguments, and of a class's attributes."""
    functions = [obj] if isinstance(obj, Function) else []
    names: set[str] = set()
    if isinstance(obj, Class):
        init = obj.members.get("__init__")
        functions += [init] if isinstance(init, Function) else []
        names |= {name for name, member in obj.members.items() if member.is_attribute}
    return names | {parameter.name for function in functions for parameter in function.parameters}


def as_list(paragraph: str, names: set[str]) -> str:
    """The paragraph, as a list if it begins with an item; items that follow on one line are divided."""
    lines = paragraph.split("\n")
    if not ITEM.match(lines[0]) or lines[0].startswith(("Raises", "Returns")):
        return paragraph
    items: list[str] = []
    for line in lines:
        if ITEM.match(line):
            items.append(line.strip())
        else:
            items[-1] += f" {line.strip()}"
    return "\n".join(_shown(part) for item in items for part in divided(item, names))


def divided(text: str, names: set[str]) -> list[str]:
    """Items of a text such as `a: first. b: second.`, where a and b are among the names."""
    parts, start = [], 0
    for match in SPLIT.finditer(text):
        if set(match[1].split(", ")) <= names:
            parts.append(text[start : match.start()].strip())
            start = match.start()
    return [*parts, text[start:].strip()]


def _shown(item: str) -> str:
    head = ITEM.match(item)
    if head is None:
        return f"- {item}"
    names = ", ".join(f"`{name.strip('`')}`" for name in head[1].split(", "))
    return f"- {names}: {item[head.end() :]}"
