"""One WebSocket on asyncio: the library `websockets` does the handshake, control frames, fragments and compression; whole text frames in clear, which
nearly all are, are taken out of the stream before it, at a fraction of its cost.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from urllib.parse import urlsplit

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidStatus
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import State
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from ._events import StentorError

#: How the server ends a connection that broke without a close frame (RFC 6455, section 7.1.5).
ABNORMAL = 1006

#: A whole text frame without extensions (RFC 6455, section 5.2): FIN, and opcode 1.
TEXT_FRAME = 0x81

#: Bytes of messages, inflated, and of what Python needs for each, after which the owner is told: a read of the socket, 256 KiB, may hold a thousand times
#: as much when it is compressed.
BATCH_BYTES = 65_536
MESSAGE_BYTES = 320

#: Where the library is to say what is wrong with an answer that has no end.
HEAD_MAX = 65_536


class Refused(Exception):
    """There was an answer, and it is no WebSocket."""

    def __init__(self, status: int, message: str, retry_after: float) -> None:
        super().__init__(f"{status}: {message}" if status else message)
        self.status = status
        #: Seconds, at least.
        self.retry_after = retry_after


class Wire(asyncio.Protocol):
    """A connection; made by `open_wire`."""

    def __init__(
        self,
        protocol: ClientProtocol,
        message_max: int,
        made: Callable[[Wire], None],
        read: Callable[[bytes | bytearray], None],
        batch: Callable[[], None],
    ) -> None:
        """`made` is called before anything comes, `read` with each message, `batch` after some. What `read` raises ends the connection, and is `broken`.
        Whoever pauses it in `batch` gets no more messages, also none of what has been read."""
        self._protocol = protocol
        self._message_max = message_max
        self._made = made
        self._read = read
        self._batch = batch
        self._transport: asyncio.Transport | None = None
        self._rest = bytearray()
        self._gathered = 0
        self._is_paused = False
        self._fragments = bytearray()
        self._is_fragmented = False
        self._has_head = False
        self._writable = asyncio.Event()
        self._writable.set()
        loop = asyncio.get_running_loop()
        self._loop = loop
        #: Done as soon as the handshake is.
        self.opened: asyncio.Future[None] = loop.create_future()
        #: Done with a close code and a reason.
        self.closed: asyncio.Future[tuple[int, str]] = loop.create_future()
        #: When the last message came, by the loop's clock.
        self.heard_at = loop.time()
        self.broken: Exception | None = None

    # ---- What the owner does -----------------------------------------------------------------------------------------------------

    def send(self, text: bytes) -> None:
        if self._protocol.state is State.OPEN:
            self._protocol.send_text(text)
            self._write()

    async def writable(self) -> None:
        """Waits until the network takes more."""
        await self._writable.wait()

    def pause(self) -> None:
        self._is_paused = True
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume(self) -> None:
        """Goes on, first with what had been read."""
        self._is_paused = False
        if self._transport is None or self._transport.is_closing():
            return
        self.heard_at = self._loop.time()
        if self._rest and self._protocol.state is State.OPEN:
            self._take(b"")
        if not self._is_paused:
            self._transport.resume_reading()

    async def close(self, patience: float) -> None:
        """Says goodbye, and waits some seconds for the other side's."""
        if self._protocol.state is State.OPEN:
            self._protocol.send_close(1000)
            self._write()
            self.resume()
            await asyncio.wait([self.closed], timeout=patience)
        self.abort("")

    def abort(self, why: str) -> None:
        """Ends it without waiting for anybody's consent."""
        if self._transport is not None:
            self._transport.abort()
        self._end(ABNORMAL, why)

    # ---- What asyncio calls ------------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._made(self)
        self._write()

    def data_received(self, data: bytes) -> None:
        if self.closed.done():
            return
        if self._protocol.state is State.CONNECTING:
            data = self._handshake(data)
            if self._protocol.state is State.CONNECTING:
                return  # What there is of an answer is no frames.
        self._take(data)

    def eof_received(self) -> None:
        self._protocol.receive_eof()
        self._respond()

    def connection_lost(self, exc: Exception | None) -> None:
        self._writable.set()
        self._protocol.receive_eof()
        code, reason = self._protocol.close_code, self._protocol.close_reason
        self._end(code or ABNORMAL, reason or (str(exc) if exc else ""))

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    # ---- Bytes -------------------------------------------------------------------------------------------------------------------

    def _handshake(self, data: bytes) -> bytes:
        """Takes the answer's head. What is behind it, is frames."""
        self._rest += data
        end = self._rest.find(b"\r\n\r\n") + 4
        if end < 4 and len(self._rest) < HEAD_MAX and not self._has_head:
            return b""
        self._has_head = True
        head, self._rest = bytes(self._rest), bytearray()
        behind = b""
        if head.startswith(b"HTTP/1.1 101"):
            head, behind = head[:end], head[end:]
        self._protocol.receive_data(head)
        self._respond()
        return behind

    def _respond(self) -> None:
        for event in self._protocol.events_received():
            if isinstance(event, Response) and self._protocol.handshake_exc is None and not self.opened.done():
                self.opened.set_result(None)
        error = self._protocol.handshake_exc
        if error is not None and not self.opened.done():
            self.opened.set_exception(_refusal(error))
            self._end(ABNORMAL, str(error))
        self._write()

    def _take(self, data: bytes) -> None:
        try:
            self._frames(data)
        except Exception as error:  # Whatever it is, this connection is of no use any more; its owner says it.
            self.broken = error
            self.abort(str(error))
        self._gathered = 0
        self._batch()

    def _frames(self, data: bytes) -> None:
        rest = self._rest
        rest += data
        at, end, heard = 0, len(rest), False
        while end - at >= 2 and not self._is_paused:
            first, length = rest[at], rest[at + 1]
            body = at + 2
            if length >= 126:
                body += 2 if length == 126 else 8
                if body > end:
                    break
                length = int.from_bytes(rest[at + 2 : body])
            if length > self._message_max:
                self._pass(bytes(rest[at:body]))  # It knows what to say to that.
                at = end
                break
            if body + length > end:
                break
            if first == TEXT_FRAME and not self._is_fragmented:
                heard = True
                self._gathered += MESSAGE_BYTES + length
                self._read(rest[body : body + length])
            else:
                self._pass(bytes(rest[at : body + length]))
                if self._protocol.state is not State.OPEN:
                    at = end  # Nothing behind a goodbye is looked at.
                    break
            at = body + length
            if self._gathered >= BATCH_BYTES:
                self._gathered = 0
                self._batch()
        del rest[:at]
        if heard:
            self.heard_at = self._loop.time()

    def _pass(self, frame: bytes) -> None:
        self._protocol.receive_data(frame)
        for event in self._protocol.events_received():
            if isinstance(event, Frame) and event.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
                self._fragments += event.data
                self._is_fragmented = not event.fin
                if event.fin:
                    message, self._fragments = self._fragments, bytearray()
                    self.heard_at = self._loop.time()
                    self._gathered += MESSAGE_BYTES + len(message)
                    self._read(message)
        self._write()

    def _write(self) -> None:
        transport = self._transport
        for data in self._protocol.data_to_send():
            if transport is None or transport.is_closing():
                return
            if data:
                transport.write(data)
            elif transport.can_write_eof():
                transport.write_eof()
        if self._protocol.state is State.CLOSING and self._protocol.close_rcvd is not None and transport is not None:
            # It is for the server to end the TCP connection; who waits for that for ever has nothing of it.
            self._loop.call_later(1, transport.abort)

    def _end(self, code: int, why: str) -> None:
        if not self.opened.done():
            self.opened.set_exception(ConnectionError(why or "the connection ended before there was a WebSocket"))
        if not self.closed.done():
            self.closed.set_result((code, why))


def _refusal(error: Exception) -> Exception:
    if not isinstance(error, InvalidStatus):
        return Refused(0, f"no WebSocket: {error}", 0)
    answer = error.response
    said = bytes(answer.body or b"").decode("utf-8", "replace").strip()
    try:
        retry_after = float(answer.headers.get("Retry-After") or 0)
    except ValueError:
        retry_after = 0
    return Refused(answer.status_code, said or answer.reason_phrase, retry_after)


def address(url: str) -> str:
    """An address as it is connected to: `http` stands for `ws`, and no path for `/ws`."""
    parts = urlsplit(url)
    scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
    if scheme not in ("ws", "wss") or not parts.hostname:
        raise StentorError("bad_address", f"expected something like wss://host/ws, found {url!r}")
    return parts._replace(scheme=scheme, path=parts.path if parts.path.strip("/") else "/ws", fragment="").geturl()


async def open_wire(
    url: str,
    *,
    token: str | None,
    tls: ssl.SSLContext | None,
    compression: bool,
    message_max: int,
    made: Callable[[Wire], None],
    read: Callable[[bytes | bytearray], None],
    batch: Callable[[], None],
) -> Wire:
    """Connects. Raises `Refused`, or an `OSError`; whoever calls it says how long it may take."""
    uri = parse_uri(address(url))
    protocol = ClientProtocol(
        uri,
        extensions=[ClientPerMessageDeflateFactory(client_max_window_bits=True)] if compression else None,
        subprotocols=[Subprotocol("stentor.v1.json")],
        max_size=message_max,
    )
    request = protocol.connect()
    if token is not None:
        request.headers["Authorization"] = f"Bearer {token}"
    protocol.send_request(request)
    loop = asyncio.get_running_loop()
    secure = tls or ssl.create_default_context() if uri.secure else None
    _, wire = await loop.create_connection(
        lambda: Wire(protocol, message_max, made, read, batch), uri.host, uri.port, ssl=secure, server_hostname=uri.host if uri.secure else None
    )
    try:
        await wire.opened
    except BaseException:
        wire.abort("")
        raise
    return wire
