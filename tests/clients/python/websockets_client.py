"""PyPI's `websockets`."""
import websockets
from websockets.asyncio.client import connect

from conversation import run


class Socket:
    def __init__(self, connection):
        self.connection = connection
        self.send = connection.send
        self.next = connection.recv
        self.close = connection.close

    async def ping(self):
        await (await self.connection.ping())

    async def closed(self):
        await self.connection.wait_closed()
        return self.connection.close_code


async def open(url, protocols):
    return Socket(await connect(url, subprotocols=protocols or None, ping_interval=None, proxy=None))


run("websockets", websockets.__version__, open)
