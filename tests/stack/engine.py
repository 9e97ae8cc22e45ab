"""A Docker engine of the test's own: its data under a folder, base images made here from Debian packages, and nothing of
it left afterwards, neither processes nor rules of the packet filter nor bridges."""

import contextlib
import os
import shutil
import signal
import subprocess
import time

HERE = os.path.dirname(os.path.abspath(__file__))
NEEDED_GB = 6  # images 1.5 GB, build stages as much again, and air
SYSCTLS = ("net.ipv4.ip_forward", "net.bridge.bridge-nf-call-iptables", "net.bridge.bridge-nf-call-ip6tables")
PACKAGES = {"dockerd": "docker.io", "docker": "docker.io", "iptables": "iptables", "mmdebstrap": "mmdebstrap"}


class Impossible(Exception):
    """Why the engine can not be had here, in words."""


def output(*argv, check=True, **more):
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, **more)
    if check and done.returncode != 0:
        raise Impossible(f"{' '.join(argv)}: status {done.returncode}\n{done.stdout.decode(errors='replace')[-3000:]}")
    return done.stdout.decode(errors="replace")


def install():
    missing = sorted({package for binary, package in PACKAGES.items() if not shutil.which(binary)})
    if not missing:
        return
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    output("apt-get", "-o", "DPkg::Lock::Timeout=150", "-qq", "update", env=env)
    # Its service is not wanted, only the program.
    output("apt-get", "-o", "DPkg::Lock::Timeout=150", "-qq", "install", "-y", "--no-install-recommends", *missing, env=env)


def base_system(cache):
    """A tar of Debian 12, as small as it comes; kept in `cache` for a week."""
    base = os.path.join(cache, "bookworm.tar")
    if not os.path.exists(base) or time.time() - os.path.getmtime(base) > 7 * 86400:
        with open("/etc/apt/sources.list.d/debian.sources", encoding="utf-8") as f:
            mirror = next(line.split()[1] for line in f if line.startswith("URIs:"))
        slim = [f"--dpkgopt=path-exclude=/usr/share/{what}/*" for what in ("doc", "man", "locale")]
        output("mmdebstrap", "--quiet", "--variant=minbase", "--mode=root", "--dpkgopt=force-unsafe-io", *slim, "bookworm",
               base + ".new.tar", mirror)
        os.rename(base + ".new.tar", base)
    return base


class Engine:
    def __init__(self, folder, cache):
        """`cache`: where the base system and the plugins are kept from run to run."""
        self.folder, self.cache = folder, cache
        self.process = self.rules = None
        self.sysctls = {}
        free_gb = shutil.disk_usage(folder).free / 1e9
        if free_gb < NEEDED_GB:
            raise Impossible(f"{folder} has {free_gb:.1f} GB free, and images and containers need {NEEDED_GB} GB: "
                             "make room, or set TMPDIR to a folder on a larger disk")
        if os.getuid() != 0:
            raise Impossible("a Docker engine needs root: run this as root")
        install()
        if os.path.exists("/var/run/docker.pid") or os.path.exists("/sys/class/net/docker0"):
            raise Impossible("a Docker engine runs here already; this test starts its own and would take its bridge: "
                             "stop that one first")
        os.makedirs(cache, exist_ok=True)
        output(os.path.join(HERE, "compose-plugins"), cache)
        self.env = {"PATH": os.environ["PATH"], "HOME": folder, "DOCKER_HOST": f"unix://{folder}/docker.sock",
                    "DOCKER_CONFIG": cache, "COMPOSE_PROGRESS": "quiet", "COMPOSE_ANSI": "never"}

    def start(self):
        for name in SYSCTLS:
            with contextlib.suppress(OSError), open("/proc/sys/" + name.replace(".", "/"), encoding="ascii") as f:
                self.sysctls[name] = f.read()
        self.rules = output("iptables-save")
        with open(os.path.join(self.folder, "dockerd.log"), "wb") as log:
            self.process = subprocess.Popen(
                ["dockerd", "--data-root", f"{self.folder}/data", "--exec-root", f"{self.folder}/run", "--pidfile",
                 f"{self.folder}/pid", "--host", self.env["DOCKER_HOST"]], stdin=subprocess.DEVNULL, stdout=log,
                stderr=log, start_new_session=True)
        end = time.monotonic() + 30
        while subprocess.run(["docker", "info"], env=self.env, capture_output=True, check=False).returncode != 0:
            if self.process.poll() is not None or time.monotonic() > end:
                with open(os.path.join(self.folder, "dockerd.log"), encoding="utf-8", errors="replace") as f:
                    raise Impossible("dockerd does not start:\n" + f.read()[-3000:])
            time.sleep(0.2)

    def docker(self, *args, check=True, **more):
        return output("docker", *args, check=check, env=self.env, **more)

    def make_base_images(self):
        """debian:bookworm-slim and postgres:15, under their stock names: what the Dockerfile and compose.yaml name."""
        base = base_system(self.cache)
        self.docker("import", "--change", 'CMD ["bash"]', base, "debian:bookworm-slim")
        self.docker("build", "--quiet", "--tag", "postgres:15", os.path.join(HERE, "postgres"))

    def stop(self):
        if not self.process:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
        for bridge in os.listdir("/sys/class/net"):
            if bridge == "docker0":
                output("ip", "link", "del", bridge, check=False)
        output("iptables", "-P", "FORWARD", "ACCEPT", check=False)
        for table in ("filter", "nat"):
            output("iptables", "-t", table, "-F", check=False)
            output("iptables", "-t", table, "-X", check=False)
        if self.rules.strip():
            output("iptables-restore", input=self.rules.encode(), check=False)
        for name, value in self.sysctls.items():
            with contextlib.suppress(OSError), open("/proc/sys/" + name.replace(".", "/"), "w", encoding="ascii") as f:
                f.write(value)
