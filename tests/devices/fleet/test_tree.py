from typing import Any

import pytest
from devices.fleet.layer_strategies import CONFIG, flat
from hypothesis import given
from hypothesis import strategies as st
from moedge_devices.fleet.shape import WHOLE, ByName, NamedList, Section, config_shape, layer_shape
from moedge_devices.fleet.tree import Branch, Leaf, leaves, merge, origin_of, remove

EMPTY = Branch({}, ())


def merged(*layers: dict[str, Any]) -> Branch:
    tree = EMPTY
    for number, layer in enumerate(layers):
        result = merge(tree, layer, config_shape(), (f"layer{number}",))
        assert isinstance(result, Branch)
        tree = result
    return tree


@given(st.lists(CONFIG, max_size=4))
def test_the_innermost_layer_that_says_something_wins(layers: list[dict[str, Any]]) -> None:
    expected: dict[tuple[str, ...], Any] = {}
    for layer in layers:
        expected |= flat(layer)
    assert flat(merged(*layers).plain) == expected


@given(st.lists(CONFIG, max_size=4))
def test_every_value_knows_the_layer_that_said_it(layers: list[dict[str, Any]]) -> None:
    for path, leaf in leaves(merged(*layers)):
        if leaf.value in ({}, []):
            continue  # an empty section has no value of its own
        number = int(str(leaf.origin[0]).removeprefix("layer"))
        value: Any = layers[number]
        for part in leaf.origin[1:]:
            value = value[part]
        assert value == leaf.value
        later = [flat(layer).get(tuple(map(str, path))) for layer in layers[number + 1 :]]
        assert later == [None] * len(later)


@given(CONFIG, CONFIG)
def test_an_empty_layer_changes_nothing_and_merging_changes_no_layer(
    outer: dict[str, Any], inner: dict[str, Any]
) -> None:
    before = repr((outer, inner))
    tree = merged(outer)
    assert merge(tree, {}, config_shape(), ("x",)) is tree
    plain = repr(tree.plain)
    merge(tree, inner, config_shape(), ("x",))
    assert repr(tree.plain) == plain and repr((outer, inner)) == before


@given(CONFIG, CONFIG, st.data())
def test_what_is_removed_is_gone_and_nothing_else(
    outer: dict[str, Any], inner: dict[str, Any], data: st.DataObject
) -> None:
    tree = merged(outer, inner)
    known = flat(tree.plain)
    paths = [path for path in sorted(known) if path[-1] != "name"]
    if not paths:
        return
    path = data.draw(st.sampled_from(paths))
    path = path[: data.draw(st.integers(1, len(path)))]
    left, problem = remove(tree, path)
    assert problem is None
    assert flat(left.plain) == {key: value for key, value in known.items() if key[: len(path)] != path}
    assert flat(tree.plain) == known
    again, problem = remove(left, path)
    assert again is left and problem is not None and path[-1] in problem


def test_a_removed_watch_comes_back_as_the_layer_writes_it() -> None:
    tree = merged({"watches": [{"name": "a", "interval": 1, "max_tokens": 3}]})
    left, _ = remove(tree, ("watches", "a"))
    assert merge(left, {"watches": [{"name": "a", "interval": 2}]}, config_shape(), ("x",)).plain == {
        "watches": [{"name": "a", "interval": 2}]
    }


def test_a_json_schema_is_one_value() -> None:
    first = {"watches": [{"name": "a", "json_schema": {"type": "object", "properties": {"x": {}}}}]}
    second = {"watches": [{"name": "a", "json_schema": {"type": "array"}}]}
    assert merged(first, second).plain["watches"][0]["json_schema"] == {"type": "array"}


def test_null_is_a_value_and_takes_the_place_of_what_was_inherited() -> None:
    def mqtt(*layers: dict[str, Any]) -> Any:
        return merged(*({"mqtt": layer} for layer in layers)).plain["mqtt"]

    assert mqtt({"ca": "x", "url": "u"}, {"ca": None}) == {"ca": None, "url": "u"}
    assert mqtt({"embedded": {"port": 1}}, {"embedded": True}) == {"embedded": True}
    assert mqtt({"embedded": True}, {"embedded": {"port": 1}}) == {"embedded": {"port": 1}}


def test_two_watches_of_one_name_in_one_layer_are_both_kept_to_be_reported() -> None:
    raw = {"watches": [{"name": "a", "interval": 1}, {"name": "a", "interval": 2}, {"interval": 3}, "b"]}
    assert merged({"watches": [{"name": "a", "max_tokens": 1}]}, raw).plain["watches"] == [
        {"name": "a", "max_tokens": 1, "interval": 1},
        {"name": "a", "interval": 2},
        {"interval": 3},
        "b",
    ]


def test_origins_go_on_below_what_a_layer_has_said() -> None:
    tree = merged({"cameras": {"gate": {"fps": 1}}}, {"watches": [{"name": "a", "camera": "gate"}]})
    assert origin_of(tree, ("cameras", "gate", "source")) == ("layer0", "cameras", "gate", "source")
    assert origin_of(tree, ("watches", 0, "camera")) == ("layer1", "watches", 0, "camera")
    assert origin_of(tree, ("model",)) is None


def test_the_shape_comes_from_the_types() -> None:
    shape = config_shape()
    assert isinstance(shape.fields["cameras"], ByName) and isinstance(shape.fields["watches"], NamedList)
    watch = shape.fields["watches"].item
    assert isinstance(watch, Section) and watch.fields["json_schema"] == WHOLE
    mqtt = shape.fields["mqtt"]
    assert isinstance(mqtt, Section) and isinstance(mqtt.fields["embedded"], Section) and mqtt.fields["url"] == WHOLE
    assert set(layer_shape().fields) == {"profile", "bundle", "system", "update", "config"}


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        (("cameras", "gaet"), "nothing is inherited as 'gaet'. Did you mean 'gate'?"),
        (("cameras", "x"), "nothing is inherited as 'x'. Inherited there: gate."),
        (("cameras", "gate", "fps", "x"), "'fps' is one value and has no parts to remove"),
    ],
)
def test_a_removal_that_finds_nothing_says_what_there_is(path: tuple[str, ...], problem: str) -> None:
    tree = merged({"cameras": {"gate": {"fps": 1}}})
    assert remove(tree, path) == (tree, problem)


def test_a_leaf_shows_its_value() -> None:
    assert Leaf(3, ()).plain == 3
