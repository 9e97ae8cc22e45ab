"""Hosts of their own: network namespaces joined by a bridge, and what cuts one from another.

All of it lives in a network and a mount namespace of the process that asks, so nothing of this machine is
touched, whatever its firewall says does not matter, and it is gone with the process however that ends.
"""

import ctypes
import os
import re
import subprocess
import threading

from harness import Failed, check

NETWORK = "10.77.0"
TOOLS = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
CLONE_NEWNS, CLONE_NEWNET = 0x00020000, 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def tool(*argv):
    done = subprocess.run(argv, env=TOOLS, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    out = done.stdout.decode(errors="replace")
    if done.returncode != 0:
        raise Failed(f"{' '.join(argv)}: status {done.returncode}: {out.strip()}\nThis test needs a machine that lets it have network "
                     "namespaces with a bridge, veth pairs and iptables in them: run it as root, in a container with "
                     "CAP_SYS_ADMIN and CAP_NET_ADMIN, with the packages iproute2 and iptables.")
    return out


def _enter():
    """Takes this process into namespaces of its own. Whatever it starts is in them, too."""
    if _libc.unshare(CLONE_NEWNS | CLONE_NEWNET) != 0:
        raise Failed(f"this machine allows no network namespaces (unshare: {os.strerror(ctypes.get_errno())}): run this test as "
                     "root, in a container with CAP_SYS_ADMIN and CAP_NET_ADMIN")
    tool("mount", "--make-rprivate", "/")
    tool("mount", "-t", "tmpfs", "-o", "mode=755", "none", "/run")  # the names of namespaces, the lock of iptables
    os.makedirs("/run/netns")
    with open("/run/hosts", "w", encoding="ascii"):
        pass
    tool("mount", "--bind", "/run/hosts", "/etc/hosts")
    tool("ip", "link", "set", "lo", "up")
    tool("ip", "link", "add", "switch", "type", "bridge")
    tool("ip", "address", "add", f"{NETWORK}.1/24", "dev", "switch")
    tool("ip", "link", "set", "switch", "up")


class Network:
    """`names`: a host for each; one that ends with -1, -2, ... is known by the name without that, too, and
    all that share it are its addresses. This process itself sits at the bridge."""

    entered = False
    ports = 0  # so many were made; the names of those before may not be free yet

    def __init__(self, names):
        self.addresses = {name: f"{NETWORK}.{n}" for n, name in enumerate(names, start=2)}
        self.mine = []
        if not Network.entered:
            _enter()
            Network.entered = True
        with open("/etc/hosts", "w", encoding="ascii") as f:
            f.write("127.0.0.1 localhost\n")
            for name, address in self.addresses.items():
                f.write(f"{address} {name}\n")
                if re.search(r"-\d$", name):
                    f.write(f"{address} {name[:-2]}\n")
        for name, address in self.addresses.items():
            port = f"port{Network.ports}"
            Network.ports += 1
            tool("ip", "netns", "add", name)
            self.mine.append((name, port))
            tool("ip", "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", name)
            tool("ip", "link", "set", port, "master", "switch", "up")
            tool("ip", "-n", name, "address", "add", f"{address}/24", "dev", "eth0")
            tool("ip", "-n", name, "link", "set", "eth0", "up")
            tool("ip", "-n", name, "link", "set", "lo", "up")

    def at(self, name, user=None):
        """What comes before a command to run it on this host."""
        command = ["/usr/sbin/ip" if os.path.exists("/usr/sbin/ip") else "/sbin/ip", "netns", "exec", name]
        if user:  # the kernel forgets who is to die with us when the user changes
            command += ["/usr/bin/setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--pdeathsig=KILL"]
        return command

    def thread(self, name, work):
        """A thread of this process that lives on another host: what it opens is there."""
        def go():
            with open(f"/run/netns/{name}", "rb") as f:
                check(_libc.setns(f.fileno(), CLONE_NEWNET) == 0, f"setns to {name}: {os.strerror(ctypes.get_errno())}")
            work()
        one = threading.Thread(target=go, daemon=True)
        one.start()
        return one

    # -- a black hole: what is sent is neither delivered nor refused, in both directions --

    def _rules(self, action, some, others):
        for here, there in [(a, b) for a in some for b in others] + [(b, a) for a in some for b in others]:
            tool("ip", "netns", "exec", here, "iptables", "-w", action, "INPUT", "-s", self.addresses[there], "-j", "DROP")

    def cut(self, some, others):
        self._rules("-A", some, others)

    def lost(self, host, other):
        """Packets that did not reach this host from the other since the cut."""
        rules = tool("ip", "netns", "exec", host, "iptables", "-w", "-L", "INPUT", "-v", "-n", "-x")
        return sum(int(n) for n, source in re.findall(r"(?m)^ *(\d+) +\d+ DROP .*?(\S+) +0\.0\.0\.0/0 *$", rules)
                   if source == self.addresses[other])

    def heal(self, some, others):
        self._rules("-D", some, others)

    def close(self):
        for name, port in self.mine:
            for argv in (["ip", "link", "delete", port], ["ip", "netns", "delete", name]):
                subprocess.run(argv, env=TOOLS, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
        self.mine = []
