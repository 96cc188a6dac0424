"""JSON of somebody else's."""

from __future__ import annotations

import json

import pytest

from mlforge.core.json_text import decoded, decoded_bytes


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1, "a": 1}',
        '{"a": 1, "\\u0061": 2}',
        '{"a": ":", "a" : null}',
        '{"rows": [{"b": 1}, {"b": 1, "b": 2}]}',
        '{"rows": [7, {"b": {"c": 1, "c": 2}}]}',
        '[{"a": 1, "a": 2}]',
        '{"a": NaN}',
        '{"a": [Infinity]}',
    ],
)
def test_what_json_does_not_have_or_says_twice_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"twice|no number"):
        decoded(text)


@pytest.mark.parametrize(
    "value",
    [1, "a:b", [], {"a": 1, "b": {"a": 1}}, [{"a": "::"}, {"a": ":"}], {"r": [{"a": 1}] * 2}],
)
def test_other_json_is_what_pythons_parser_says(value: object) -> None:
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-32"):
        assert decoded_bytes(json.dumps(value).encode(encoding)) == value
