from full_size.curve import Budget
from full_size.duel import Duel
from full_size.summary import markdown, resident_prefill_s, summary_of_curve, summary_of_duel
from full_size.systems import TextFrame
from moedge_runtime.bench.frame import FrameMeasurement, Share
from moedge_runtime.bench.limits import Bandwidths
from moedge_runtime.bench.rounds import FRAMES

SPEEDS = Bandwidths(memory=10e9, flash=1e9)


def frame(prefill_s: float, wait_s: float) -> FrameMeasurement:
    return FrameMeasurement(
        226, 220, 0.0, 1.0, Share(prefill_s, wait_s, 7_000_000, 0.0), [Share(0.1, 0, 2_000_000, 0)] * 12, [], 60.0
    )


def budget(cap_gib: int, prefill_s: float, wait_s: float) -> Budget:
    return Budget(cap_gib, {name: [(frame(prefill_s, wait_s), SPEEDS)] for name in FRAMES}, [], 0, 1 << 30)


def test_the_time_with_everything_in_memory_is_what_the_largest_budget_computed() -> None:
    assert resident_prefill_s([budget(20, 3, 0.5), budget(4, 9, 6)]) == dict.fromkeys(FRAMES, 2.5)


def test_the_tables_have_a_row_for_every_budget_and_frame_and_columns_for_every_window() -> None:
    curve = summary_of_curve([budget(4, 9, 6), budget(20, 3, 0.5)], 1_000_000_000, {})
    table = markdown({"curve": curve, "duels": []})
    assert "| 4 GiB | cold frame | 10.00 s | 1.00 s | 3.00 s | 6.00 s | 3.00 s | 7 MB | 1.00 GiB |" in table
    assert table.count("| 20 GiB |") == len(FRAMES) * 2
    assert "| cap | frame | tokens 1–10, each | limit | read | tokens 11–12, each | limit | read |" in table
    assert "| 20 GiB | scene change | 100 ms | 100 ms | 2 MB | 100 ms | 100 ms | 2 MB |" in table


def test_a_duel_without_a_peer_leaves_the_peers_cells_empty() -> None:
    ours = TextFrame(220, 2.0, 0, [0.1] * 2, [0] * 2, frame(2.0, 1.0))
    alone = summary_of_duel(Duel(None, 8 << 30, [ours], [], [SPEEDS]), "skewed", 500_000_000, None)
    row = markdown({"duels": [alone]}).splitlines()[2]
    assert row == "| skewed | 8 GiB | – | 2.00 s | 1.00 s | – | – | 100 ms | 50 ms | – | – | 0 MB | – |"
