import numpy as np
from moedge_runtime.inference.kv_cache import KvCache
from runtime.bundle.sample import TEXT


def test_a_buffer_for_every_layer_is_allocated_and_zero():
    cache = KvCache(TEXT, 100)
    assert len(cache.keys) == len(cache.values) == TEXT.num_hidden_layers
    assert cache.keys[0].shape() == [1, 2, 100, 16]
    assert not np.any(cache.values[1].numpy())


def test_a_cache_behind_another_one_has_the_places_that_are_left():
    cache = KvCache(TEXT, 100)
    other = cache.behind(70)
    last = other.behind(20)
    assert [each.capacity for each in (cache, other, last)] == [100, 30, 10]
    assert last.offset == 90 and other.length == last.length == 0
    for layer in range(TEXT.num_hidden_layers):
        for number, (whole, behind, end) in enumerate(
            zip(cache.memory(layer), other.memory(layer), last.memory(layer), strict=True)
        ):
            whole[...], behind[...], end[...] = layer, layer + 10 + number, layer + 20 + number
    for layer in range(TEXT.num_hidden_layers):
        for number, whole in enumerate(cache.memory(layer)):
            assert np.all(whole[:, :70] == layer)
            assert np.all(whole[:, 70:90] == layer + 10 + number)
            assert np.all(whole[:, 90:] == layer + 20 + number)
        assert other.keys[layer].shape() == [1, 2, 100, 16]
        assert np.all(other.values[layer].numpy()[0, :, :20] == layer + 11)


def test_a_copy_of_one_cache_can_be_restored_to_another():
    cache = KvCache(TEXT, 100)
    for layer in range(TEXT.num_hidden_layers):
        for array in cache.memory(layer):
            array[...] = np.random.default_rng(layer).standard_normal(array.shape)
    cache.length = 12
    other = cache.behind(50)
    other.restore(cache.copy(12))
    assert other.length == 12
    assert all(np.array_equal(a, b) for a, b in zip(other.copy(12), cache.copy(12), strict=True))
