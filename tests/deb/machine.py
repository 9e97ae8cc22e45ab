"""A Debian 12 of its own in a folder, booted with its own systemd (systemd-nspawn), on this machine's network."""

import contextlib
import os
import signal
import subprocess
import time

from engine import Impossible, base_system, output


def status_of(pid):
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as f:
        return dict(line.rstrip("\n").split(":\t", 1) for line in f if ":\t" in line)


class Machine:
    def __init__(self, folder, cache):
        if os.getuid() != 0:
            raise Impossible("a machine in a folder needs root: run this as root")
        self.root = os.path.join(folder, "root")
        self.folder = folder
        self.nspawn = self.leader = None
        os.makedirs(self.root)
        os.makedirs(cache, exist_ok=True)
        output("tar", "-xf", base_system(cache), "-C", self.root)
        # The base leaves manual pages out, and these are to be looked at.
        for name in os.listdir(self.path("/etc/dpkg/dpkg.cfg.d")):
            os.remove(self.path("/etc/dpkg/dpkg.cfg.d", name))
        with open(self.path("/etc/dpkg/dpkg.cfg.d/fast"), "w", encoding="ascii") as f:
            f.write("force-unsafe-io\n")
        output("cp", "-L", "/etc/resolv.conf", self.path("/etc/resolv.conf"))

    def path(self, *parts):
        return os.path.join(self.root, *[part.lstrip("/") for part in parts])

    def read(self, path):
        with open(self.path(path), encoding="utf-8") as f:
            return f.read()

    def write(self, path, text, mode=0o644):
        with open(os.open(self.path(path), os.O_CREAT | os.O_WRONLY | os.O_TRUNC, mode), "w", encoding="utf-8") as f:
            f.write(text)

    def run(self, *argv, text="", code=0, seconds=60, env=None):
        """Runs it inside, booted or not, and answers what it says; `code` is the exit status wanted (None: any)."""
        way = ["nsenter", "-t", str(self.leader), "-a"] if self.leader else ["chroot", self.root]
        env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8", "HOME": "/root", **(env or {})}
        done = subprocess.run([*way, *argv], env=env, cwd="/", input=text.encode(), timeout=seconds, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, check=False)
        said = done.stdout.decode(errors="replace")
        if code is not None and done.returncode != code:
            raise AssertionError(f"{' '.join(argv)}: exit status {done.returncode}, want {code}\n{said[-3000:]}")
        return said

    def boot(self, *binds):
        """`binds`: folders of this machine that are seen inside: OUTSIDE:INSIDE."""
        script = ("mount --make-rprivate / && mkdir -p /run/systemd && mount -t tmpfs tmpfs /run/systemd && exec systemd-nspawn --quiet "
                  "--register=no --keep-unit --boot --console=pipe --resolv-conf=off --timezone=off --link-journal=no \"$@\"")
        with open(os.path.join(self.folder, "nspawn.log"), "wb") as log:
            self.nspawn = subprocess.Popen(["unshare", "-m", "sh", "-c", script, "sh", "-D", self.root, *[f"--bind={b}" for b in binds]],
                                           stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        end = time.monotonic() + 30
        while time.monotonic() < end and self.nspawn.poll() is None:
            self.leader = self._child()
            if self.leader and self.run("systemctl", "is-system-running", code=None).strip() in ("running", "degraded"):
                return
            time.sleep(0.1)
        with open(os.path.join(self.folder, "nspawn.log"), encoding="utf-8", errors="replace") as f:
            raise Impossible("systemd does not boot in a container here:\n" + f.read()[-3000:])

    def _child(self):
        with contextlib.suppress(OSError, ValueError), open(f"/proc/{self.nspawn.pid}/task/{self.nspawn.pid}/children", encoding="ascii") as f:
            for child in f.read().split():
                with open(f"/proc/{child}/comm", encoding="ascii") as comm:
                    if comm.read().strip() == "systemd":
                        return int(child)
        return None

    def stop(self):
        leader, self.leader = self.leader, None
        if not self.nspawn or self.nspawn.poll() is not None:
            return
        if leader:
            with contextlib.suppress(OSError):
                os.kill(leader, signal.SIGRTMIN + 4)  # power off
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.nspawn.wait(20)
            return
        self.nspawn.kill()
        self.nspawn.wait(10)

    # ---- units ----

    def show(self, unit, what):
        return self.run("systemctl", "show", "--value", "-p", what, unit).strip()

    def pid(self, unit):
        """Of its main process, as it is called outside; 0 when there is none."""
        inside = self.show(unit, "MainPID")
        if inside == "0":
            return 0
        return next((pid for pid, of in self._processes() if of["PPid"] == str(self.leader) and of["NSpid"].split()[-1] == inside), 0)

    def processes_of(self, uid):
        return [of["Name"] for _, of in self._processes() if of["Uid"].split()[0] == uid]

    def _processes(self):
        """(pid, the lines of its status) of everything inside."""
        inside = os.readlink(f"/proc/{self.leader}/ns/pid")
        for name in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{name}/ns/pid") == inside:
                    yield int(name), status_of(name)
