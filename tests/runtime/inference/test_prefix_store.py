import pytest
from moedge_runtime.inference.kv_cache import KvCache
from moedge_runtime.inference.prefix_store import PrefixStore
from runtime.bundle.sample import TEXT

ROOM = 40


@pytest.fixture(autouse=True)
def room(monkeypatch):
    monkeypatch.setattr("moedge_runtime.inference.prefix_store.PREFIX_TOKENS", ROOM)


@pytest.fixture
def cache():
    return KvCache(TEXT, 100)


def compute(cache, store, tokens, answer=3):
    """Fill the cache as a decoder does: what is new of `tokens`, each with its own number, and an answer after them.

    Returns:
        How many tokens were not computed.
    """
    reused = store.begin(cache, tokens)
    assert cache.length == reused
    for buffer in (*cache.keys, *cache.values):
        values = buffer.numpy()
        for place in range(reused, len(tokens)):
            values[:, :, place] = tokens[place]
        values[:, :, len(tokens) : len(tokens) + answer] = -1
        buffer.update_inplace(values)
    cache.length = len(tokens) + answer
    store.keep(cache, tokens)
    return reused


def held(cache, length):
    return [buffer.numpy()[0, 0, :length, 0].tolist() for buffer in (*cache.keys, *cache.values)]


def test_questions_in_turn_are_each_computed_once(cache):
    store = PrefixStore(cache)
    first, second = [1, 2, 3, 4, 5], [1, 2, 7, 8]
    assert [compute(cache, store, tokens) for tokens in (first, second, first, second, first)] == [0, 2, 5, 4, 5]
    assert held(cache, 5) == [[1.0, 2.0, 3.0, 4.0, 5.0]] * 2 * TEXT.num_hidden_layers


def test_the_longest_beginning_is_used_whether_kept_or_present(cache):
    store = PrefixStore(cache)
    compute(cache, store, [1, 2, 3, 4])
    assert store.begin(cache, [1, 2, 3, 9]) == 3
    compute(cache, store, [5, 6])
    assert store.begin(cache, [1, 2, 9]) == 2
    assert held(cache, 2)[0] == [1.0, 2.0]
    assert store.begin(cache, [8]) == cache.length == 0


def test_prefixes_not_used_for_the_longest_time_make_room(cache):
    store = PrefixStore(cache)
    a, b, c = ([base + index for index in range(16)] for base in (100, 200, 300))
    compute(cache, store, a)
    compute(cache, store, b)
    compute(cache, store, a)
    assert compute(cache, store, c) == 0  # b has to go, 48 tokens are too many
    assert compute(cache, store, a) == 16
    assert compute(cache, store, b) == 0


def test_a_text_that_is_longer_than_the_room_is_not_kept(cache):
    store = PrefixStore(cache)
    long = list(range(ROOM + 1))
    compute(cache, store, long)
    assert store.begin(cache, long) == len(long)  # it is present
    compute(cache, store, [900])
    assert compute(cache, store, long) == 0


def test_nothing_is_kept_of_buffers_elsewhere(cache):
    cache._arrays = None  # as on a GPU
    store = PrefixStore(cache)
    compute(cache, store, [1, 2, 3])
    assert store.begin(cache, [1, 2, 3, 4]) == 3
    compute(cache, store, [7])
    assert compute(cache, store, [1, 2, 3]) == 0
