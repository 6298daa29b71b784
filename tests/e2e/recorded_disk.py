"""A disk that remembers every write and every flush, and what may be left of it when the power fails.

The kernel's file system runs on a loop device, and that device's file is served by us (FUSE, spoken here): so all that reaches
the disk, file data, directories and the file system's own journal alike, passes through record(). What was written before the
last flush is on the disk; of each later write it may have all, nothing, or some of its sectors.

With a rate it is a slow disk instead: writes are served one after the other, each as long as it takes at that rate.
"""

import bisect
import contextlib
import ctypes
import os
import pathlib
import random
import shutil
import stat
import struct
import subprocess
import threading
import time

SECTOR = 512
LOOKUP, FORGET, GETATTR, SETATTR, OPEN, READ, WRITE, STATFS, RELEASE = 1, 2, 3, 4, 14, 15, 16, 17, 18
FSYNC, FLUSH, INIT, OPENDIR, RELEASEDIR, ACCESS, INTERRUPT, DESTROY, BATCH_FORGET = 20, 25, 26, 27, 29, 34, 36, 38, 42
IN, OUT = struct.Struct("<IIQQIIII"), struct.Struct("<IiQ")
RANGE = struct.Struct("<QQI")  # how READ and WRITE begin: handle, offset, length
RANGE_HEADER = 40
DATA_MAX = 256 * 1024
REQUEST_MAX = DATA_MAX + 4096
ROOT, FILE = 1, 2
DIRECT_IO = 1
BIG_WRITES, MAX_PAGES = 1 << 5, 1 << 22
LAZY = 2
NAME = "disk"

_libc = ctypes.CDLL(None, use_errno=True)


def _call(name, *arguments):
    if getattr(_libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def run(*command):
    subprocess.run([str(word) for word in command], check=True, capture_output=True, timeout=120)


def may_be_had():
    return (os.geteuid() == 0 and os.path.exists("/dev/fuse") and os.path.exists("/dev/loop-control")
            and all(shutil.which(name) for name in ("losetup", "mount", "umount", "mkfs.ext4")))


class RecordedDisk:
    """An image, mounted. `record` is (None, 0, 0) for a flush or (offset, length, where its octets are in the log)."""

    def __init__(self, directory, image, rate=0):
        self.directory = pathlib.Path(directory)
        self.base = pathlib.Path(image)  # as it was when the recording began
        self.mounted = self.directory / "mounted"
        self._served = self.directory / "served"
        self._image = self.directory / "image"
        self.log = self.directory / "log"
        self.records = []
        self.rate = rate
        self._free_at = 0.0
        self._fd = self._data = self._log = None
        self._loop = None
        self._thread = None
        self._logged = 0

    # Life

    def __enter__(self):
        for folder in (self.mounted, self._served):
            folder.mkdir(parents=True)
        run("cp", "--sparse=always", self.base, self._image)
        self._data = os.open(self._image, os.O_RDWR | os.O_CLOEXEC)
        self._log = os.open(self.log, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._size = os.fstat(self._data).st_size
        self._fd = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        _call("mount", b"outtray-test", bytes(self._served), b"fuse", 0,
              f"fd={self._fd},rootmode=40000,user_id=0,group_id=0,max_read={DATA_MAX}".encode())
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        try:
            done = subprocess.run(["losetup", "--show", "-f", self._served / NAME], check=True, capture_output=True, timeout=60)
            self._loop = done.stdout.decode().strip()
            run("mount", self._loop, self.mounted)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for _ in range(100):
            if not os.path.ismount(self.mounted):
                break
            subprocess.run(["umount", self.mounted], check=False, capture_output=True)
            time.sleep(0.05)
        if self._loop:
            subprocess.run(["losetup", "-d", self._loop], check=False, capture_output=True)
        with contextlib.suppress(OSError):
            _call("umount2", bytes(self._served), LAZY)
        self._thread.join(10)
        for fd in (self._fd, self._data, self._log):
            os.close(fd)

    # The file, as the kernel asks for it

    def _serve(self):
        while True:
            try:
                request = os.read(self._fd, REQUEST_MAX)
            except OSError as reason:
                if isinstance(reason, (InterruptedError, FileNotFoundError)):  # the request was taken back
                    continue
                return  # unmounted
            _, opcode, unique, node, *_ = IN.unpack_from(request)
            body = memoryview(request)[IN.size:]
            if opcode in (FORGET, BATCH_FORGET, INTERRUPT):
                continue
            answer = self._answer(opcode, node, body)
            error, payload = (answer, b"") if isinstance(answer, int) else (0, answer)
            with contextlib.suppress(FileNotFoundError):
                os.write(self._fd, OUT.pack(OUT.size + len(payload), error, unique) + payload)
            if opcode == DESTROY:
                return

    def _answer(self, opcode, node, body):
        if opcode == READ:
            _, offset, length = RANGE.unpack_from(body)
            return os.pread(self._data, length, offset)
        if opcode == WRITE:
            _, offset, length = RANGE.unpack_from(body)
            self._write(offset, body[RANGE_HEADER:RANGE_HEADER + length])
            return struct.pack("<II", length, 0)
        if opcode == FSYNC:
            self.records.append((None, 0, 0))
            return b""
        if opcode == INIT:
            return struct.pack("<IIIIHHIIHH", 7, 31, 0, BIG_WRITES | MAX_PAGES, 16, 12, DATA_MAX, 1, DATA_MAX // 4096,
                               0).ljust(64, b"\0")
        if opcode == LOOKUP:
            return struct.pack("<QQQQII", FILE, 0, 3600, 3600, 0, 0) + self._attributes(FILE)
        if opcode in (GETATTR, SETATTR):
            return struct.pack("<QII", 3600, 0, 0) + self._attributes(node)
        if opcode in (OPEN, OPENDIR):
            return struct.pack("<QII", node, DIRECT_IO, 0)
        if opcode == STATFS:
            return struct.pack("<QQQQQIIII", 0, 0, 0, 0, 0, 4096, 255, 4096, 0).ljust(80, b"\0")
        if opcode in (FLUSH, RELEASE, RELEASEDIR, ACCESS, DESTROY):
            return b""
        return -38  # ENOSYS

    def _attributes(self, node):
        mode = stat.S_IFDIR | 0o700 if node == ROOT else stat.S_IFREG | 0o600
        size = 0 if node == ROOT else self._size
        return struct.pack("<QQQQQQIIIIIIIIII", node, size, size // SECTOR, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)

    def _write(self, offset, data):
        os.pwrite(self._data, data, offset)
        if self.rate:
            now = time.monotonic()
            self._free_at = max(self._free_at, now) + len(data) / self.rate
            time.sleep(max(0, self._free_at - now))
            return
        os.pwrite(self._log, data, self._logged)
        self.records.append((offset, len(data), self._logged))
        self._logged += len(data)

    # What a loss of power leaves

    def images(self, cuts, draw: random.Random):
        """For each of these lengths of the record, in rising order: (the length, an image of what the disk may hold).

        After the end only: a file system does not like to meet another one of the same name."""
        kept, image = self.directory / "kept", self.directory / "after"
        run("cp", "--sparse=always", self.base, kept)
        log = os.open(self.log, os.O_RDONLY | os.O_CLOEXEC)
        flushes = [number for number, record in enumerate(self.records) if record[0] is None]
        done = 0
        for cut in cuts:
            before = bisect.bisect_left(flushes, cut)
            durable = flushes[before - 1] if before else 0
            self._apply(log, kept, done, durable, None)
            done = max(done, durable)
            run("cp", "--sparse=always", kept, image)
            self._apply(log, image, durable, cut, draw)
            yield cut, image
        os.close(log)

    def _apply(self, log, path, first, last, draw):
        share = draw.choice((0, 0.2, 0.5, 0.8, 1)) if draw else 1
        with open(path, "r+b", buffering=0) as file:
            for offset, length, at in self.records[first:last]:
                if offset is None:
                    continue
                data = os.pread(log, length, at)
                for begin, end in _kept_parts(length, share, draw):
                    os.pwrite(file.fileno(), data[begin:end], offset + begin)


def _kept_parts(length, share, draw):
    """Of a write that no flush has followed."""
    if not draw:
        return [(0, length)]
    if draw.random() >= 0.25:
        return [(0, length)] if draw.random() < share else []
    return [(begin, min(begin + SECTOR, length)) for begin in range(0, length, SECTOR) if draw.random() < share]


@contextlib.contextmanager
def mounted(image, place):
    """The file system of an image, after what it does itself to recover."""
    pathlib.Path(place).mkdir(exist_ok=True)
    run("mount", "-o", "loop", image, place)
    try:
        yield pathlib.Path(place)
    finally:
        for _ in range(100):
            if subprocess.run(["umount", place], check=False, capture_output=True).returncode == 0:
                break
            time.sleep(0.05)
