from __future__ import annotations

from expert_core.memory_map import by_kind

SMAPS = """\
55d0a0000000-55d0a0001000 r-xp 00000000 fe:00 131 /usr/bin/python3 (deleted)
Size:               2048 kB
Rss:                1024 kB
Pss:                 512 kB
55d0a1000000-55d0a1001000 rw-p 00000000 00:00 0 [heap]
Size:                 16 kB
Rss:                   8 kB
7f0000000000-7f0000001000 rw-p 00000000 00:00 0
Size:            1048576 kB
Rss:              524288 kB
7f1000000000-7f1000001000 rw-p 00000000 00:00 0
Size:               8192 kB
Rss:                   4 kB
7f2000000000-7f2000001000 r--s 00000000 fe:00 132 /models/experts.bin
Size:            1048576 kB
Rss:                  12 kB
"""


def test_memory_is_told_apart_as_files_slots_and_all_other() -> None:
    assert by_kind(SMAPS, slots_bytes=1 << 30) == {"files": (1024 + 12) << 10, "slots": 512 << 20, "other": 12 << 10}


def test_anonymous_memory_smaller_than_the_slots_is_not_taken_for_them() -> None:
    assert by_kind(SMAPS, slots_bytes=(1 << 30) + 1)["slots"] == 0
