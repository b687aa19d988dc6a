"""A disk of the test's own: a file mounted as a file system, which can be frozen and filled without harm to the machine."""

import os
import shutil
import subprocess
import time

import pytest

TOOLS = ("mkfs.ext4", "mount", "umount", "fsfreeze", "fallocate")


class Disk:
    """An ext4 file system of `mib` MiB in a sparse file. Skips the test where this machine does not allow that."""

    def __init__(self, folder, mib):
        self.folder, self.mib = folder, mib
        self.image, self.path = folder / "disk.img", folder / "disk"
        self.frozen = False

    def mount(self):
        if os.geteuid() != 0:
            pytest.skip("mounting a file system needs root")
        missing = [tool for tool in TOOLS if shutil.which(tool) is None]
        if missing:
            pytest.skip(f"not installed: {', '.join(missing)}")
        with open(self.image, "wb") as image:
            image.truncate(self.mib << 20)
        self._run("mkfs.ext4", "-q", "-F", str(self.image))
        self.path.mkdir()
        mounted = self._run("mount", "-o", "loop", str(self.image), str(self.path), check=False)
        if mounted.returncode != 0:
            pytest.skip(f"this machine mounts no loop devices: {mounted.stderr.strip()}")
        return self

    def freeze(self):
        """Every write below waits from now on, as on a disk that hangs."""
        frozen = self._run("fsfreeze", "-f", str(self.path), check=False)
        if frozen.returncode != 0:
            pytest.skip(f"this machine freezes no file system: {frozen.stderr.strip()}")
        self.frozen = True

    def thaw(self):
        if self.frozen:
            self._run("fsfreeze", "-u", str(self.path))
            self.frozen = False

    def free(self):
        """Bytes that can still be written."""
        space = os.statvfs(self.path)
        return space.f_bavail * space.f_frsize

    def fill(self, leave=0):
        """Takes all space but `leave` bytes, at once and without writing it. Root may use what is reserved for root,
        so that is taken too."""
        ballast = self.path / f"ballast-{time.monotonic_ns()}"
        space = os.statvfs(self.path)
        size = space.f_bfree * space.f_frsize - leave
        while size > 1 << 16:
            if self._run("fallocate", "-l", str(size), str(ballast), check=False).returncode == 0:
                return
            size -= 1 << 20  # the file system needs some of it for itself

    def empty(self):
        """Gives the space back."""
        for ballast in self.path.glob("ballast-*"):
            ballast.unlink()

    def unmount(self):
        self.thaw()
        if os.path.ismount(self.path):
            for _ in range(50):
                if self._run("umount", str(self.path), check=False).returncode == 0:
                    break
                time.sleep(0.1)
            else:
                self._run("umount", "--lazy", str(self.path), check=False)

    @staticmethod
    def _run(*words, check=True):
        return subprocess.run(words, check=check, capture_output=True, text=True, timeout=60)
