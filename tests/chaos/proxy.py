"""A TCP port in front of another, or of Postgres' unix socket, that cuts, resets, delays, and loses the
answer to a COMMIT."""

import asyncio
import contextlib
import socket
import struct
import threading


class Proxy:
    """Runs in a thread of its own. Its trouble is set by attribute and holds until it is set back.
    `target`: the path of a unix socket, or a port of 127.0.0.1."""

    def __init__(self, target):
        self.target = target
        self.delay_s = 0.0         # of every piece, either way
        self.refuse = False        # new connections are closed at once
        self.lose_commits = 0      # so many COMMITs reach Postgres, and the client never hears of it
        self.lost = 0
        self.open = set()          # the clients' ends
        self.loop = asyncio.new_event_loop()
        listening = threading.Event()
        self.thread = threading.Thread(target=self._run, args=(listening,), daemon=True)
        self.thread.start()
        listening.wait(10)

    def _run(self, listening):
        asyncio.set_event_loop(self.loop)
        server = self.loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        listening.set()
        self.loop.run_forever()
        for task in (open_still := asyncio.all_tasks(self.loop)):
            task.cancel()
        self.loop.run_until_complete(asyncio.gather(*open_still, return_exceptions=True))

    def url(self, database):
        return f"postgresql://uf@127.0.0.1:{self.port}/{database}?sslmode=disable"

    async def _serve(self, reader, writer):
        if self.refuse:
            writer.close()
            return
        try:
            if isinstance(self.target, int):
                up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.target)
            else:
                up_reader, up_writer = await asyncio.open_unix_connection(self.target)
        except OSError:
            writer.close()
            return
        self.open.add(writer)
        answer = asyncio.ensure_future(self._pump(up_reader, writer, False, None))
        await self._pump(reader, up_writer, True, answer)
        with contextlib.suppress(asyncio.CancelledError, OSError):
            await answer
        self.open.discard(writer)

    async def _pump(self, reader, writer, to_server, answer):
        with contextlib.suppress(OSError, asyncio.CancelledError):
            while piece := await reader.read(65536):
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                if to_server and self.lose_commits and b"COMMIT" in piece:
                    self.lose_commits -= 1
                    self.lost += 1
                    answer.cancel()  # closes the client's end
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0.5)  # Postgres commits, and has no one to tell
                    break
                writer.write(piece)
                await writer.drain()
        writer.close()

    def _end_all(self, reset):
        for writer in list(self.open):
            if reset:
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    def cut(self, reset):
        """Ends all connections, by RST or FIN."""
        self.loop.call_soon_threadsafe(self._end_all, reset)

    def heal(self):
        self.delay_s, self.refuse, self.lose_commits = 0.0, False, 0

    def close(self):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(5)
