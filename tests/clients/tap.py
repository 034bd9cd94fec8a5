"""What came over the wire, as neither the client nor the server has it: stands between both, passes bytes on, and looks at the server's frames.

    tap.py HOST:PORT STREAMS

prints its own address, and when it is told to end (SIGTERM) whether each connection was sent what it had agreed on: one that takes a window of 12 bits and
lets the server keep its context, frames that refer to those before, and otherwise none. STREAMS is how many shared streams there should have been, those
over TLS too, of which this sees nothing: their number, and how often they began anew, is in the server's metrics. With 0, connections should have been sent
frames that stand alone. Ends with 1 where something was different.
"""
import asyncio
import re
import signal
import sys
import urllib.request
import zlib

# As in a frame's first byte (RFC 6455, section 5.2).
FIN, RSV1, OPCODE, CONTROL = 0x80, 0x40, 0x0F, 0x08
# A connection that was sent fewer messages has talked of something else.
MESSAGES_MIN = 300
# What the server compresses with, unannounced.
WINDOW_BITS = 12
# What a deflated message leaves out (RFC 7692, section 7.2.1).
TAIL = b"\x00\x00\xff\xff"
# With 900 publications, of which a stream begins anew each 256 compressed ones.
ANEW_MIN = 2
FRAMES_MIN = 500


class Sight:
    """One connection's answers."""

    def __init__(self):
        self.buffer = bytearray()
        self.agreed = None
        self.is_frames = self.is_other = False
        self.message, self.is_compressed = bytearray(), False
        self.clear = self.compressed = self.refers = 0
        self.wire = self.inflated = 0
        self.context = zlib.decompressobj(-WINDOW_BITS)

    def see(self, data):
        if self.is_other:
            return
        self.buffer += data
        if not self.is_frames:
            end = self.buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = self.buffer[:end].decode("latin-1")
            self.is_frames = head.startswith("HTTP/1.1 101")
            self.is_other = not self.is_frames
            found = re.search(r"(?im)^sec-websocket-extensions: *(.*?)\r?$", head)
            self.agreed = found.group(1) if found else ""
            del self.buffer[: end + 4]
        while self.is_frames and self.frame():
            pass

    def frame(self):
        buffer = self.buffer
        if len(buffer) < 2:
            return False
        first, length, body = buffer[0], buffer[1], 2
        if length >= 126:
            body = 4 if length == 126 else 10
            length = int.from_bytes(buffer[2:body])
        if len(buffer) < body + length:
            return False
        if not first & CONTROL:
            if first & OPCODE:
                self.message.clear()
                self.is_compressed = bool(first & RSV1)
            self.message += buffer[body : body + length]
            if first & FIN:
                self.whole(bytes(self.message))
        del buffer[: body + length]
        return True

    def whole(self, message):
        self.wire += len(message)
        if not self.is_compressed:
            self.clear += 1
            self.inflated += len(message)
            return
        self.compressed += 1
        self.inflated += len(self.context.decompress(message + TAIL))
        try:
            zlib.decompressobj(-WINDOW_BITS).decompress(message + TAIL)
        except zlib.error:
            self.refers += 1

    @property
    def messages(self):
        return self.clear + self.compressed

    def reads_streams(self):
        bits = re.search(r"server_max_window_bits=(\d+)", self.agreed)
        return self.agreed.startswith("permessage-deflate") and "server_no_context" not in self.agreed and (not bits or int(bits.group(1)) >= WINDOW_BITS)


async def pump(reader, writer, see):
    try:
        while data := await reader.read(65536):
            if see:
                see(data)
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    writer.close()


def metric(text, name):
    return sum(float(value) for value in re.findall(r"(?m)^%s(?:\{[^}]*\})? (\S+)$" % re.escape(name), text))


def judge(sights, metrics, streams):
    """What is different; and what to say otherwise."""
    sights = [sight for sight in sights if sight.messages >= MESSAGES_MIN]
    wrong = []
    for sight in sights:
        told = "agreed on %r: of %d messages %d compressed, %d of them refer to others" % (sight.agreed, sight.messages, sight.compressed, sight.refers)
        if streams and sight.reads_streams():
            is_right = sight.refers > sight.messages / 2
        elif sight.reads_streams() or "server_no_context" in sight.agreed:
            is_right = sight.compressed > sight.messages / 2 and not sight.refers
        else:
            is_right = not sight.compressed
        if not is_right:
            wrong.append(told)
    readers = [sight for sight in sights if sight.refers]
    if streams and not readers:
        wrong.append("nobody has read a stream, of %d connections" % len(sights))
    anew = metric(metrics, "stentor_shared_streams_anew_total")
    packed = sum(float(value) for value in re.findall(r'(?m)^stentor_shared_frames_total\{[^}]*result="packed"[^}]*\} (\S+)$', metrics))
    if streams and (anew < ANEW_MIN * streams or packed < FRAMES_MIN * streams):
        wrong.append("%d streams began anew %d times, with %d frames" % (streams, anew, packed))
    if not streams and packed:
        wrong.append("%d frames in shared streams" % packed)
    if wrong:
        return wrong, ""
    of = readers or [sight for sight in sights if sight.compressed]
    left = 100 * sum(sight.wire for sight in of) / max(1, sum(sight.inflated for sight in of))
    if streams:
        return [], "%d of %d connections read a stream: %.0f %% of the bytes, begun anew %d times in %d streams" % (len(readers), len(sights), left, anew, streams)
    return [], "%d of %d connections compressed, each message for itself: %.0f %% of the bytes" % (len(of), len(sights), left)


async def main(target, streams):
    host, _, port = target.rpartition(":")
    sights, over = [], asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, over.set)

    async def meet(near_reader, near_writer):
        sight = Sight()
        sights.append(sight)
        far_reader, far_writer = await asyncio.open_connection(host, int(port))
        try:
            await asyncio.gather(pump(near_reader, far_writer, None), pump(far_reader, near_writer, sight.see))
        except asyncio.CancelledError:
            pass  # It is over, and somebody has not closed.

    server = await asyncio.start_server(meet, "127.0.0.1", 0)
    print("127.0.0.1:%d" % server.sockets[0].getsockname()[1], flush=True)
    await over.wait()
    with urllib.request.urlopen("http://%s/metrics" % target) as answer:
        metrics = answer.read().decode()
    wrong, told = judge(sights, metrics, streams)
    print("; ".join(wrong) or told, flush=True)
    return 1 if wrong else 0


sys.exit(asyncio.run(main(sys.argv[1], int(sys.argv[2]))))
