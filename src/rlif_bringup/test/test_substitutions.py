# SPDX-License-Identifier: Apache-2.0
"""Substitutions of launch files."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from rlif_bringup.substitutions import Scope, substitute


@given(st.text(st.characters(blacklist_characters="$\\")))
def test_substitute_of_plain_text_changes_nothing(text: str) -> None:
    assert substitute(text, Scope({}, {}, Path("f"))) == text


@given(st.text(), st.text())
def test_substitute_never_substitutes_a_value_again(before: str, value: str) -> None:
    before = before.replace("$", "").replace("\\", "")
    assert substitute(before + "$(var v)", Scope({"v": value}, {}, Path("f"))) == before + value


def test_substitute_of_nested_and_quoted_text() -> None:
    scope = Scope({"which": "a", "a": "found"}, {}, Path("/d/f.yaml"))
    assert substitute("$(var $(var which))/$(dirname)", scope) == "found//d"
    assert substitute("$(var none 'two words')", scope) == "two words"
    assert substitute(r"\$(var a)", scope) == "$(var a)"
