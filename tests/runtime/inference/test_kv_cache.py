import numpy as np
import pytest
from moedge_runtime.errors import RequestError
from moedge_runtime.inference.kv_cache import KvCache
from runtime.bundle.sample import TEXT


def test_a_buffer_for_every_layer_is_allocated_and_zero():
    cache = KvCache(TEXT, 100)
    assert len(cache.keys) == len(cache.values) == TEXT.num_hidden_layers
    assert cache.keys[0].shape() == [1, 2, 100, 16]
    assert not np.any(cache.values[1].numpy())
    assert cache.nbytes == 2 * 2 * 2 * 100 * 16 * 4


def test_what_does_not_fit_is_refused_with_the_numbers():
    cache = KvCache(TEXT, 100)
    cache.check_room(60, 40)
    with pytest.raises(RequestError, match=r"has 61 tokens .* may have 40; .* max_context=100"):
        cache.check_room(61, 40)
