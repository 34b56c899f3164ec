import numpy as np
from moedge_runtime.inference.kv_cache import KvCache
from runtime.bundle.sample import TEXT


def test_a_buffer_for_every_layer_is_allocated_and_zero():
    cache = KvCache(TEXT, 100)
    assert len(cache.keys) == len(cache.values) == TEXT.num_hidden_layers
    assert cache.keys[0].shape() == [1, 2, 100, 16]
    assert not np.any(cache.values[1].numpy())
