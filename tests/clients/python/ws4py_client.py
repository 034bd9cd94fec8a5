"""PyPI's `ws4py`, whose client is a thread that calls back."""
import asyncio
import queue

import ws4py
from ws4py.client.threadedclient import WebSocketClient

from conversation import PATIENCE, run


class Socket(WebSocketClient):
    def __init__(self, url, protocols):
        super().__init__(url, protocols=protocols or None)
        self.daemon = True
        self.messages, self.pongs, self.codes = queue.Queue(), queue.Queue(), queue.Queue()

    def handshake_ok(self):
        """Doesn't start the thread that reads, as ws4py 0.6.0 would: it would run into what `connect` does next, which is to take in
        what came along with the handshake's answer."""

    def open(self):
        self.connect()
        self._th.start()

    def received_message(self, message):
        self.messages.put(message.data.decode() if message.is_text else message.data)

    def ponged(self, pong):
        self.pongs.put(pong)

    def closed(self, code, reason=None):
        self.codes.put(code)


def later(call, *arguments):
    return asyncio.get_running_loop().run_in_executor(None, call, *arguments)


class Awaited:
    def __init__(self, socket):
        self.socket = socket

    async def send(self, message):
        self.socket.send(message, binary=isinstance(message, bytes))

    async def next(self):
        return await later(self.socket.messages.get, True, PATIENCE)

    async def ping(self):
        self.socket.ping(b"?")
        await later(self.socket.pongs.get, True, PATIENCE)

    async def close(self, code):
        self.socket.close(code)

    async def closed(self):
        return await later(self.socket.codes.get, True, PATIENCE)


async def open(url, protocols):
    socket = Socket(url, protocols)
    await later(socket.open)
    return Awaited(socket)


run("ws4py", ws4py.__version__, open)
