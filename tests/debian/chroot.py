"""A directory with a Linux system, and running programs in it."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

DEADLINE_S = 1200

# Everything is unmounted by itself when the program has ended.
ENTER = """
mount --types proc proc "$0/proc"
mount --bind /dev "$0/dev"
exec chroot "$@"
"""

CHANGED_BY_DPKG = (
    "./var/lib/dpkg/",
    "./var/log/",
    "./var/cache/",
    "./etc/.pwd.lock",
    "./dev/",
    "./proc/",
    "./run/",
    "./tmp/",
)
"""Not the package's own: records of dpkg and of tools that edit accounts, and what the next start clears."""


@dataclass(frozen=True)
class Chroot:
    """A system in a directory. Programs in it share the network of this machine."""

    root: Path

    def command(self, *words: object, user: bool = False) -> list[str]:
        """What starts a program in it, as root or as the daemon's user with the groups that the unit gives it."""
        options = ["--userspec=moedge:moedge", "--groups=video,render"] if user else []
        inside = [*options, str(self.root), *(str(word) for word in words)]
        return ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-euc", ENTER, str(self.root), *inside]

    def start(self, *words: object, user: bool = False) -> subprocess.CompletedProcess[str]:
        """Run a program to its end, whatever that is."""
        return subprocess.run(
            self.command(*words, user=user),
            capture_output=True,
            text=True,
            check=False,
            timeout=DEADLINE_S,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"},
        )

    def run(self, *words: object, user: bool = False) -> str:
        """Standard output; the test fails with all that the program printed if the program does."""
        done = self.start(*words, user=user)
        assert done.returncode == 0, (done.stdout + done.stderr)[-8000:]
        return done.stdout

    def install(self, package: Path) -> str:
        """Install a package with dpkg, which keeps configuration files that were changed."""
        (self.root / "package.deb").write_bytes(package.read_bytes())
        try:
            return self.run("dpkg", "--force-confold", "--force-unsafe-io", "--install", "/package.deb")
        finally:
            (self.root / "package.deb").unlink()

    def files(self) -> set[str]:
        """Paths of all there is but what dpkg keeps for itself."""
        found = {f"./{path.relative_to(self.root)}" for path in self.root.rglob("*")}
        return {path for path in found if not f"{path}/".startswith(CHANGED_BY_DPKG)}
