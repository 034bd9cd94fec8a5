"""PyPI's `websockets` and `aiohttp` with compression, and every window and parameter that they can offer.

All of them, and one without, are subscribers of a topic; each publishes on it, compressed as its library does, and everybody gets the same.
"""
import asyncio
import sys

import aiohttp
import websockets
from websockets.asyncio.client import connect
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

PATIENCE = 40


def texts(name):
    yield "%s, short" % name
    yield ("%s: {\"bid\":189.21,\"ask\":189.23,\"venue\":\"XNAS\"} grüße " % name) * 20
    yield "".join(chr(33 + (7919 * n * n + len(name)) % 90) for n in range(3000))


class OfWebsockets:
    def __init__(self, name, **offer):
        self.name, self.offer = "websockets %s" % name, offer

    async def open(self, url, _):
        factory = ClientPerMessageDeflateFactory(**self.offer)
        self.socket = await connect(url, compression=None, extensions=[factory], ping_interval=None, proxy=None)
        return self.socket.response.headers.get("Sec-WebSocket-Extensions")

    async def send(self, text):
        await self.socket.send(text)

    async def next(self):
        return await self.socket.recv()

    async def close(self):
        await self.socket.close()


class OfAiohttp:
    def __init__(self, bits):
        self.name, self.bits = "aiohttp, %d bits" % bits, bits

    async def open(self, url, session):
        self.socket = await session.ws_connect(url, compress=self.bits)
        return self.socket._response.headers.get("Sec-WebSocket-Extensions")

    async def send(self, text):
        await self.socket.send_str(text)

    async def next(self):
        return await self.socket.receive_str()

    async def close(self):
        await self.socket.close()


def clients():
    for bits in range(9, 16):
        yield OfWebsockets("server %d" % bits, server_max_window_bits=bits), True
        yield OfWebsockets("client %d" % bits, client_max_window_bits=bits), True
        yield OfAiohttp(bits), True
    yield OfWebsockets("8 bits", server_max_window_bits=8), False
    yield OfWebsockets("alone", server_no_context_takeover=True, client_no_context_takeover=True), True
    yield OfWebsockets("12 alone", server_no_context_takeover=True, server_max_window_bits=12, client_max_window_bits=12), True


async def converse(base):
    url = "%s/raw/clients.compression.%s" % (base, "tls" if base.startswith("wss") else "clear")
    count = 0
    async with aiohttp.ClientSession(trust_env=True) as session:
        plain = await connect(url, compression=None, ping_interval=None, proxy=None)
        opened = []
        for client, is_taken in clients():
            answer = await client.open(url, session)
            assert (answer is not None) == is_taken, (client.name, answer)
            opened.append(client)
        for publisher in opened:
            for text in texts(publisher.name):
                await publisher.send(text)
                for client in opened:
                    got = await client.next()
                    assert got == text, (client.name, publisher.name, got[:80])
                assert await plain.recv() == text, publisher.name
                count += 1
        for client in opened:
            await client.close()
        await plain.close()
    return len(opened), count


print("websockets %s and aiohttp %s, compression" % (websockets.__version__, aiohttp.__version__), flush=True)
try:
    clients_, messages = asyncio.run(asyncio.wait_for(converse(sys.argv[1]), PATIENCE))
except Exception as error:
    print("%s: %r" % (type(error).__name__, error), file=sys.stderr)
    sys.exit(1)
print("%d clients, %d messages each" % (clients_, messages))
