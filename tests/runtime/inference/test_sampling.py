import numpy as np
import pytest
from moedge_runtime.errors import RequestError
from moedge_runtime.inference.sampling import Sampling, draw, greedy, processed_logits


def transformers_logits(logits, previous, sampling):
    import torch
    from transformers.generation import logits_process as hf

    processors = []
    if sampling.repetition_penalty != 1.0:
        processors.append(hf.RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty))
    if sampling.temperature != 1.0:
        processors.append(hf.TemperatureLogitsWarper(sampling.temperature))
    if sampling.top_k:
        processors.append(hf.TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1.0:
        processors.append(hf.TopPLogitsWarper(sampling.top_p))
    if sampling.min_p:
        processors.append(hf.MinPLogitsWarper(sampling.min_p))
    scores = torch.from_numpy(logits.copy())[None]
    for processor in processors:
        scores = processor(torch.tensor([previous]), scores)
    return scores[0].numpy()


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=0.7),
        Sampling(top_k=20),
        Sampling(top_k=5000),
        Sampling(top_p=0.8),
        Sampling(top_p=0.01),
        Sampling(min_p=0.1),
        Sampling(repetition_penalty=1.3),
        Sampling(repetition_penalty=0.8),
        Sampling(temperature=0.7, top_k=20, top_p=0.8),
        Sampling(temperature=1.4, top_k=50, top_p=0.95, min_p=0.05, repetition_penalty=1.1),
    ],
    ids=str,
)
def test_the_distribution_equals_that_of_transformers(sampling):
    rng = np.random.default_rng(0)
    for _ in range(30):
        logits = rng.normal(0, 4, 1000).astype(np.float32)
        previous = rng.integers(0, 1000, 40).tolist()
        wanted = transformers_logits(logits, previous, sampling)
        got = processed_logits(logits, previous, sampling)
        np.testing.assert_array_equal(np.isfinite(got), np.isfinite(wanted))
        np.testing.assert_allclose(got, wanted, rtol=1e-6)


def test_logits_of_the_caller_stay_as_they_are():
    logits = np.arange(10, dtype=np.float32)
    processed_logits(logits, [3], Sampling(temperature=0.5, top_k=2, repetition_penalty=2))
    np.testing.assert_array_equal(logits, np.arange(10))


def test_the_same_seed_draws_the_same_tokens():
    logits = np.random.default_rng(0).normal(0, 1, 500).astype(np.float32)
    runs = [
        [draw(logits, [], Sampling(), random) for _ in range(20)] for random in map(np.random.default_rng, (1, 1, 2))
    ]
    assert runs[0] == runs[1] != runs[2]


def test_tokens_are_drawn_as_often_as_their_probability_says():
    logits = np.log(np.array([0.5, 0.3, 0.2, 0.0], np.float32) + 1e-30)
    logits[3] = -np.inf
    random = np.random.default_rng(0)
    counts = np.bincount([draw(logits, [], Sampling(), random) for _ in range(4000)], minlength=4)
    np.testing.assert_allclose(counts / 4000, [0.5, 0.3, 0.2, 0], atol=0.03)
    assert counts[3] == 0


def test_greedy_takes_the_first_of_equal_logits():
    assert greedy(np.array([0, 5, 5], np.float32)) == 1


def test_the_checkpoint_recommends_and_the_caller_changes():
    config = {"temperature": 0.7, "top_k": 20, "top_p": 0.8, "do_sample": True, "eos_token_id": [1]}
    assert Sampling.from_generation_config(config) == Sampling(temperature=0.7, top_k=20, top_p=0.8)
    assert Sampling.from_generation_config(config, top_p=None, top_k=3).top_k == 3


def test_values_out_of_range_are_all_named():
    with pytest.raises(
        RequestError, match=r"temperature=0 must be above 0 .*; top_p=1.5 must be above 0 and at most 1"
    ):
        Sampling(temperature=0, top_p=1.5)
