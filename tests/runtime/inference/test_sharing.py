from moedge_runtime.inference.sharing import SharingGain

GB = 1e9


def after(*passes):
    gain = SharingGain()
    for each in passes:
        gain.note(*each)
    return gain.prompts()


def test_nothing_is_shared_before_a_pass_has_waited_for_flash():
    assert after() == 1
    assert after((1, 2.5, 0.0, 0.0)) == 1
    assert after((1, 2.5, 0.1, GB)) == 1


def test_as_many_share_a_pass_as_are_computed_while_it_reads():
    assert after((1, 10.0, 7.5, 8 * GB)) == 4
    assert after((1, 10.0, 5.0, 8 * GB)) == 2
    assert after((1, 10.0, 2.5, 8 * GB)) == 1


def test_a_shared_pass_teaches_the_same_as_one_alone():
    alone, shared = (1, 10.0, 5.0, 8 * GB), (2, 10.5, 0.5, 8.4 * GB)
    assert after(alone) == after(alone, shared) == after(alone, shared, shared) == 2


def test_more_memory_for_experts_ends_it():
    slow = (1, 10.0, 5.0, 8 * GB)
    assert after(slow, (1, 5.2, 0.1, 2 * GB)) == 1
    assert after(slow, (1, 5.0, 0.0, 0.0)) == 1
