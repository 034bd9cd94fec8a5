"""The conversation of ../README.md, over a function that opens a socket.

`await open(url, protocols)` gives an object with `send(str or bytes)`, `next()`, `ping()` (which is done when the pong has come),
`close(code)` and `closed()`, which gives the code; all of them to be awaited.
"""
import asyncio
import base64
import json
import os
import platform
import sys

PATIENCE = 20


async def converse(open, base, topic):
    ws = await open(base + "/ws", ["stentor.v1.json"])

    async def until(kind):
        while True:
            message = json.loads(await ws.next())
            assert message["type"] != "error", message
            if message["type"] == kind:
                return message

    async def say(**command):
        await ws.send(json.dumps(command))

    assert (await until("hello"))["version"] == 1
    await say(op="sub", id=1, topics=[topic])
    assert (await until("ack"))["id"] == 1
    await say(op="pub", topic=topic, data={"bid": 1.5})
    assert (await until("update"))["data"] == {"bid": 1.5}

    raw = await open("%s/raw/%s" % (base, topic), [])
    await raw.send("grüße")
    assert await raw.next() == "grüße"
    assert (await until("update"))["data"] == "grüße"
    data = bytes([0, 255, 1, 2])
    await raw.send(data)
    assert await raw.next() == data
    assert (await until("update"))["base64"] == base64.b64encode(data).decode()

    await ws.ping()
    await say(op="ping", id="p")
    assert (await until("pong"))["id"] == "p"
    for _ in range(3):
        await until("heartbeat")

    await raw.close(1000)
    assert await raw.closed() == 1000
    await ws.send(data)
    assert await ws.closed() == 1003


def run(library, version, open):
    print("%s %s (Python %s)" % (library, version, platform.python_version()), flush=True)
    try:
        asyncio.run(asyncio.wait_for(converse(open, sys.argv[1], "clients." + library), PATIENCE))
    except Exception as error:
        print("%s: %s" % (type(error).__name__, error), file=sys.stderr, flush=True)
        os._exit(1)  # At once: what is still open has no more to say.
