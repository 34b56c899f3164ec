from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from moedge_devices.fleet.yaml_text import block, flow

TEXT = st.text(
    st.characters(exclude_categories=["Cs"]) | st.sampled_from("\x85\u2028\ufeff\n\t ?:#'\"{}[],&*"), max_size=12
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize("loader", [yaml.SafeLoader, yaml.CSafeLoader])
@given(VALUES)
def test_what_is_written_reads_as_the_same_values(loader: Any, value: Any) -> None:
    assert yaml.load(block(value), loader) == value
    assert yaml.load(flow(value), loader) == value
    assert "\n" not in flow(value)


def test_text_of_other_languages_stays_readable_and_shared_values_are_written_out() -> None:
    shared = {"frage": "Wie voll ist der Behälter?"}
    assert block({"a": shared, "b": [shared]}) == (
        "a:\n  frage: Wie voll ist der Behälter?\nb:\n- frage: Wie voll ist der Behälter?\n"
    )
