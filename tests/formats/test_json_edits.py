"""Edits of JSON texts: the value that is meant changes, and no other character."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segrefiner.formats.json_edits import (
    Members,
    element_spans,
    member_edits,
    member_spans,
    read_json_file,
    replace_spans,
)

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
layouts = st.sampled_from([{}, {"indent": 1}, {"indent": 3, "separators": (" ,", " : ")}, {"separators": (",", ":")}])


@settings(max_examples=150)
@given(st.dictionaries(st.text(), values, max_size=5), layouts, st.booleans())
def test_spans_are_those_of_the_values(value: dict[str, Any], layout: dict[str, Any], ascii_only: bool) -> None:
    text = f" \n{json.dumps(value, ensure_ascii=ascii_only, **layout)} "
    found = member_spans(text, 0)
    assert {name: json.loads(text[slice(*span)]) for name, span in found.items()} == value
    listed = f"\t{json.dumps(list(value.values()), **layout)}"
    assert [json.loads(listed[slice(*span)]) for span in element_spans(listed, 0)] == list(value.values())


@settings(max_examples=150)
@given(st.dictionaries(st.text(), values, max_size=5), st.dictionaries(st.text(), values, max_size=3), layouts)
def test_edited_members_are_those_of_the_same_dictionary(
    value: dict[str, Any], new: dict[str, Any], layout: dict[str, Any]
) -> None:
    text = json.dumps(value, **layout)
    edited = replace_spans(text, member_edits(text, 0, new))
    assert json.loads(edited) == value | new
    assert list(json.loads(edited)) == list(value | new)


def test_numbers_names_and_spaces_stay_as_they_are(tmp_path: Path) -> None:
    text = '\ufeff{ "a" :1.50e+00, "same": 1, "same": {"x": 1.0 , "y":[ 2 ]},\r\n"b":12345678901234567890.10}'
    path = tmp_path / "a.json"
    path.write_bytes(text.encode())
    file = read_json_file(path)
    assert file.edited([]) == text.encode()
    edits = member_edits(file.text, 0, {"same": Members(y=[3.0])})
    assert file.edited(edits) == text.replace("[ 2 ]", "[3.0]").encode()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-be", "utf-32"])
def test_the_encoding_stays(encoding: str, tmp_path: Path) -> None:
    text = '{"é": 1, "b": 2}'
    path = tmp_path / "a.json"
    path.write_bytes(text.encode(encoding))
    file = read_json_file(path)
    edited = file.edited(member_edits(file.text, 0, {"b": 5}))
    assert edited.decode(json.detect_encoding(edited)).lstrip("\ufeff") == text.replace("2", "5")


@pytest.mark.parametrize("inner", ['"aE012e999"', f'"{"7" * 400}"', "1e2", "1e-400", "7" * 400])
def test_letters_that_look_like_a_large_number_change_nothing(inner: str, tmp_path: Path) -> None:
    """Encodings and photos in base 64 hold such letters."""
    path = tmp_path / "a.json"
    path.write_text(f'{{ "a":{inner} , "b" : 1.50}}')
    file = read_json_file(path)
    assert not file.odd
    assert file.edited(member_edits(file.text, 0, {"b": 2})) == path.read_bytes().replace(b"1.50", b"2")


@pytest.mark.parametrize("inner", ["NaN", "-Infinity", "1e999", "-1E+400"])
def test_numbers_that_json_lacks_become_null(inner: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(f'{{"a": {inner}, "b": 1}}')
    assert read_json_file(path).edited([]) == b'{"a": null, "b": 1}'
