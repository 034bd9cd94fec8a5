"""PyPI's `websockets` and `aiohttp` with compression, and every window and parameter that they can offer.

All of them, and one without, are subscribers of a topic; each publishes on it, compressed as its library does, and everybody gets the same. Then they are
subscribers of a pattern, on which one publishes (as in node/stream.js).
"""
import asyncio
import json
import sys

import aiohttp
import websockets
from websockets.asyncio.client import connect
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

PATIENCE = 50

# Publications of a pattern, and how many of them at a time.
COUNT, AT_ONCE = 900, 30


def texts(name):
    yield "%s, short" % name
    yield ("%s: {\"bid\":189.21,\"ask\":189.23,\"venue\":\"XNAS\"} grüße " % name) * 20
    yield "".join(chr(33 + (7919 * n * n + len(name)) % 90) for n in range(3000))


def quote(n):
    """JSON as it is written, not as somebody would write it again."""
    if n % 10 == 9:
        return '{"n": %d}' % n
    if n % 50 == 48:
        return '{"n":%d,"noise":"%s"}' % (n, "".join(chr(48 + (7919 * at * at + 31 * n * at) % 43) for at in range(7000)))
    levels = ["[%d.%d,%d00]" % (100 + n % 7, (7919 * n * n + at) % 90 + 10, (n * 37 + at) % 500 + 1) for at in range(6)]
    return '{"n":%d,"venue":"XNAS","text":"grüße","bids":[%s], "asks":[%s],"last":1.50}' % (n, ",".join(levels), ",".join(levels[::-1]))


async def message(client, kind):
    while True:
        text = await client.next()
        assert not text.startswith('{"type":"error"'), text
        if text.startswith('{"type":"%s"' % kind):
            return text


async def stream(subscribers, publisher, topic):
    for client in subscribers:
        await client.send(json.dumps({"op": "sub", "id": 1, "topics": [topic + ".*"]}))
    for client in subscribers:
        await message(client, "ack")
    for first in range(0, COUNT, AT_ONCE):
        batch = [("%s.%d" % (topic, n % 5), quote(n)) for n in range(first, first + AT_ONCE)]
        for name, data in batch:
            await publisher.send('{"op":"pub","topic":"%s","data":%s}' % (name, data))
        for client in subscribers:
            for name, data in batch:
                got = await message(client, "update")
                is_it = got.startswith('{"type":"update","topic":"%s",' % name) and got.endswith(',"data":%s}' % data)
                assert is_it, (client.name, got[:300], data[:80])


class OfWebsockets:
    def __init__(self, name, offer):
        self.name, self.offer = "websockets %s" % name, offer

    async def open(self, url, _):
        extensions = [ClientPerMessageDeflateFactory(**self.offer)] if self.offer is not None else None
        self.socket = await connect(url, compression=None, extensions=extensions, ping_interval=None, proxy=None)
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
        yield OfWebsockets("server %d" % bits, {"server_max_window_bits": bits}), True
        yield OfWebsockets("client %d" % bits, {"client_max_window_bits": bits}), True
        yield OfAiohttp(bits), True
    yield OfWebsockets("8 bits", {"server_max_window_bits": 8}), False
    yield OfWebsockets("alone", {"server_no_context_takeover": True, "client_no_context_takeover": True}), True
    yield OfWebsockets("12 alone", {"server_no_context_takeover": True, "server_max_window_bits": 12, "client_max_window_bits": 12}), True
    yield OfWebsockets("no parameters", {}), True
    yield OfWebsockets("clear", None), False


async def open_all(url, session):
    opened = []
    for client, is_taken in clients():
        answer = await client.open(url, session)
        assert (answer is not None) == is_taken, (client.name, answer)
        opened.append(client)
    return opened


async def converse(base):
    topic = "clients.compression.python.%s" % ("tls" if base.startswith("wss") else "clear")
    count = 0
    async with aiohttp.ClientSession(trust_env=True) as session:
        opened = await open_all("%s/raw/%s" % (base, topic), session)
        for publisher in opened:
            for text in texts(publisher.name):
                await publisher.send(text)
                for client in opened:
                    got = await client.next()
                    assert got == text, (client.name, publisher.name, got[:80])
                count += 1
        for client in opened:
            await client.close()
        subscribers = await open_all(base + "/ws", session)
        publisher = OfWebsockets("publisher", None)
        await publisher.open(base + "/ws", session)
        await stream(subscribers, publisher, topic)
        for client in [*subscribers, publisher]:
            await client.close()
    return len(subscribers), count + COUNT


print("websockets %s and aiohttp %s, compression" % (websockets.__version__, aiohttp.__version__), flush=True)
try:
    clients_, messages = asyncio.run(asyncio.wait_for(converse(sys.argv[1]), PATIENCE))
except Exception as error:
    print("%s: %r" % (type(error).__name__, error), file=sys.stderr)
    sys.exit(1)
print("%d clients, %d messages each" % (clients_, messages))
