"""Shows the lines `name: what it is` of our docstrings as lists in the reference."""

from __future__ import annotations

import re

from griffe import Docstring, Extension, Object

ITEM = re.compile(r"((?:`?\w+`?)(?:, `?\w+`?)*): (?=\S)")


class Lists(Extension):
    """Turns each paragraph that starts with such a line into a list; other paragraphs stay."""

    def on_object(self, *, obj: Object, **_: object) -> None:
        """Called by griffe for each object that it has loaded."""
        if obj.docstring is not None:
            obj.docstring = Docstring(
                "\n\n".join(map(_as_list, obj.docstring.value.split("\n\n"))),
                parent=obj,
                parser=obj.docstring.parser,
                parser_options=obj.docstring.parser_options,
            )


def _as_list(paragraph: str) -> str:
    lines = paragraph.split("\n")
    if not ITEM.match(lines[0]) or lines[0].startswith(("Raises", "Returns")):
        return paragraph
    shown = []
    for line in lines:
        item = ITEM.match(line)
        if item:
            names = ", ".join(f"`{name.strip('`')}`" for name in item[1].split(", "))
            shown.append(f"- {names}: {line[item.end() :]}")
        else:
            shown.append(f"    {line.strip()}")
    return "\n".join(shown)
