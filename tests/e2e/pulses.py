"""What the stages tell of themselves, heard as by any ZeroMQ tool."""

import glob
import os
import time

import msgpack
import zmq

from harness import equal


class Pulses:
    """A subscriber; knows the newest pulse of each process."""

    def __init__(self, stack_):
        self.folder = os.path.join(stack_.folder, "run", "pulse")
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.SUB)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.SUBSCRIBE, b"")
        self.known = set()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()
        self.context.term()

    def listen(self, seconds=2.5):
        """The newest of each, {instance: pulse}; those that were heard in this time."""
        heard, end = {}, time.monotonic() + seconds
        for path in set(glob.glob(os.path.join(self.folder, "*.sock"))) - self.known:
            self.socket.connect("ipc://" + path)
            self.known.add(path)
        while (left := end - time.monotonic()) > 0:
            if not self.socket.poll(left * 1000):
                break
            version, kind, stage, instance, program, pid, started, uptime, leaving, samples = msgpack.unpackb(self.socket.recv())
            equal((version, kind), (2, 7), "version and kind of a pulse")
            heard[instance] = {"stage": stage, "version": program, "pid": pid, "started": started, "uptime_ms": uptime,
                               "leaving": leaving, "samples": {(name, *labels): value for name, labels, value in samples}}
        return heard
