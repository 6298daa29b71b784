"""Programs of other people's making, fetched with apt-get and unpacked below the build folder; never installed."""

import fcntl
import os
import pathlib
import shutil
import subprocess

from harness import BIN

PEERS = BIN / "peers"
SECONDS = 300


class Unavailable(Exception):
    """Why something cannot be run here."""


def unpacked(name, packages):
    """The root of these packages, which share a folder. Tests that run side by side wait for each other."""
    root = PEERS / name
    PEERS.mkdir(parents=True, exist_ok=True)
    with open(PEERS / f"{name}.lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not root.is_dir():
            _fetch(root, packages)
    return root


def _fetch(root, packages):
    if not shutil.which("apt-get") or not shutil.which("dpkg"):
        raise Unavailable("this is no Debian, so the packages cannot be fetched")
    download, unfinished = (root.with_name(f"{root.name}.{suffix}") for suffix in ("download", "new"))
    for folder in (download, unfinished):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    _download(download, packages)
    for package in sorted(download.glob("*.deb")):
        subprocess.run(["dpkg", "--extract", package, unfinished], check=True, timeout=SECONDS)
    shutil.rmtree(download)
    _turn_links(unfinished)
    unfinished.rename(root)


def _download(folder, packages):
    command = ["apt-get", "-q", "download", *packages]
    done = subprocess.run(command, cwd=folder, capture_output=True, timeout=SECONDS, check=False)
    if done.returncode != 0:  # the lists may be missing or old
        subprocess.run(["apt-get", "-q", "update"], capture_output=True, timeout=SECONDS, check=False)
        done = subprocess.run(command, cwd=folder, capture_output=True, timeout=SECONDS, check=False)
    if done.returncode != 0:
        raise Unavailable(f"apt-get download: {done.stderr.decode('utf-8', 'replace').strip()}")


def _turn_links(root):
    """Absolute links to what is in here lead here."""
    for folder, folders, files in os.walk(root):
        for path in (pathlib.Path(folder, name) for name in folders + files):
            if path.is_symlink() and os.readlink(path).startswith("/"):
                target = root / os.readlink(path)[1:]
                if os.path.lexists(target):
                    path.unlink()
                    path.symlink_to(os.path.relpath(target, path.parent))


def libraries(root):
    """For LD_LIBRARY_PATH."""
    return ":".join(sorted({str(path.parent) for path in root.glob("usr/lib/**/*.so*")}))
