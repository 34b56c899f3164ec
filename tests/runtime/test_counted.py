from moedge_runtime.counted import counted


def test_one_thing_is_said_in_the_singular() -> None:
    assert [counted(number, "site") for number in (0, 1, 2, 1200)] == ["0 sites", "1 site", "2 sites", "1,200 sites"]
    assert [counted(number, "watch", "watches") for number in (1, 2)] == ["1 watch", "2 watches"]
