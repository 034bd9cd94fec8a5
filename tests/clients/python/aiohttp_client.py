"""PyPI's `aiohttp`."""
import asyncio

import aiohttp

from conversation import run


class Socket:
    """Pings are answered while something reads, so a task does all the time."""

    def __init__(self, url, session, connection):
        self.url, self.session, self.connection = url, session, connection
        self.messages = asyncio.Queue()
        self.reading = asyncio.create_task(self.read())

    async def read(self):
        async for message in self.connection:
            await self.messages.put(message.data)

    async def send(self, message):
        await (self.connection.send_str if isinstance(message, str) else self.connection.send_bytes)(message)

    async def next(self):
        return await self.messages.get()

    async def ping(self):
        """On a connection of its own, since pongs are only seen where pings aren't answered."""
        async with self.session.ws_connect(self.url, autoping=False) as connection:
            await connection.ping(b"?")
            while (await connection.receive()).type is not aiohttp.WSMsgType.PONG:
                pass

    async def close(self, code):
        await self.connection.close(code=code)

    async def closed(self):
        await self.reading
        await self.session.close()
        return self.connection.close_code


async def open(url, protocols):
    session = aiohttp.ClientSession()
    return Socket(url, session, await session.ws_connect(url, protocols=protocols))


run("aiohttp", aiohttp.__version__, open)
