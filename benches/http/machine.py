"""Processes on cores of their own, and what the kernel says they used."""

import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import time

TICK_S = 1 / os.sysconf("SC_CLK_TCK")


class Failed(Exception):
    """Something that makes the figures worthless. Its text says what."""


def cores():
    """The core of what is measured, and the core of everything else."""
    mine = sorted(os.sched_getaffinity(0))
    if len(mine) < 2:
        raise Failed("two cores are needed: one for what is measured, one for the load")
    return mine[0], mine[1]


def pinned(core):
    """For `preexec_fn`; `core` is None for a process that may run anywhere."""
    return None if core is None else lambda: os.sched_setaffinity(0, {core})


_taken = set()


def free_port():
    """A port below those that outgoing connections are given."""
    for port in range(20100, 30000):
        if port in _taken:
            continue
        with contextlib.closing(socket.socket()) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _taken.add(port)
        return port
    raise Failed("no free port")


class Process:
    """A child, its children, and its log."""

    def __init__(self, name, argv, core, folder, **options):
        self.name = name
        self.log = pathlib.Path(folder) / f"{name}.log"
        self._output = self.log.open("ab")
        options.setdefault("stdin", subprocess.DEVNULL)
        options.setdefault("stdout", self._output)
        self.started = time.monotonic()
        self.child = subprocess.Popen(
            [str(word) for word in argv], stderr=self._output, preexec_fn=pinned(core), **options
        )

    def family(self):
        """This process and its descendants."""
        found, ahead = [], [self.child.pid]
        while ahead:
            pid = ahead.pop()
            found.append(pid)
            with contextlib.suppress(OSError):
                for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
                    ahead += [int(word) for word in (task / "children").read_text().split()]
        return found

    def cpu_s(self):
        """User and system time of all of them, ended threads included."""
        total = 0
        for pid in self.family():
            fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            total += int(fields[11]) + int(fields[12])
        return total * TICK_S

    def rss_kib(self):
        total = 0
        for pid in self.family():
            for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith("VmRSS:"):
                    total += int(line.split()[1])
        return total

    def await_port(self, port, seconds=30):
        """Until it listens."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if self.child.poll() is not None:
                raise Failed(f"{self.name} ended: {self.last_words()}")
            with contextlib.closing(socket.socket()) as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return self
            time.sleep(0.002)
        raise Failed(f"{self.name} does not listen: {self.last_words()}")

    def last_words(self):
        return self.log.read_text(errors="replace")[-1500:].strip()

    def stop(self):
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGTERM)
            try:
                self.child.wait(10)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait()
        self._output.close()


def describe():
    """The machine in a line, for whoever reads the figures."""
    model = "unknown processor"
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    kernel = os.uname().release
    return f"{os.cpu_count()} cores of {model}, {memory:.0f} GiB, Linux {kernel}"
