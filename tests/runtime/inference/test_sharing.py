from moedge_runtime.inference.sharing import SharingGain

GB = 1e9


def after(*passes):
    """Prompts worth a pass; each of `passes` is prompts, seconds for pictures, of the pass, waiting, and bytes."""
    gain = SharingGain()
    for each in passes:
        gain.note(*each)
    return gain.prompts()


def test_nothing_is_shared_before_a_pass_has_waited_for_flash():
    assert after() == 1
    assert after((1, 0.5, 2.5, 0.0, 0.0)) == 1
    assert after((1, 0.5, 2.5, 0.1, GB)) == 1


def test_as_many_share_a_pass_as_are_computed_while_it_reads():
    assert after((1, 0.5, 10.0, 7.5, 8 * GB)) == 4
    assert after((1, 0.5, 10.0, 5.0, 8 * GB)) == 2
    assert after((1, 0.5, 10.0, 2.5, 8 * GB)) == 1


def test_pictures_that_take_longer_than_reading_are_not_waited_for():
    assert after((1, 9.0, 10.0, 7.5, 8 * GB)) == 4
    assert after((1, 10.5, 10.0, 7.5, 8 * GB)) == 1


def test_the_first_tokens_come_earlier_on_average():
    for pictures_s in (0.0, 1.0, 3.0, 6.0):
        for prompt_s in (1.0, 2.0, 4.0, 6.0, 8.0):
            flash_s = 10.0
            count = after((1, pictures_s, flash_s, flash_s - prompt_s, 8 * GB))
            together_s = count * pictures_s + max(flash_s, count * prompt_s)
            alone_s = pictures_s + flash_s
            in_turn_s = [alone_s * (index + 1) for index in range(count)]
            assert count == 1 or together_s < sum(in_turn_s) / count


def test_a_shared_pass_teaches_the_same_as_one_alone():
    alone, shared = (1, 0.5, 10.0, 5.0, 8 * GB), (2, 1.0, 10.5, 0.5, 8.4 * GB)
    assert after(alone) == after(alone, shared) == after(alone, shared, shared) == 2


def test_more_memory_for_experts_ends_it():
    slow = (1, 0.5, 10.0, 5.0, 8 * GB)
    assert after(slow, (1, 0.5, 5.2, 0.1, 2 * GB)) == 1
    assert after(slow, (1, 0.5, 5.0, 0.0, 0.0)) == 1
