// socket.io on Node, over WebSocket alone. The event "subscribe" joins a room, "publish" sends a room the event "message".
// Usage: node socketio.js PORT
//
// As the project's page on performance has it (socket.io/docs/v4/performance-tuning): `ws` with its native bufferutil, which is found where
// it is installed, and the request of the handshake is let go. (utf-8-validate is not needed any more: Node has it built in.) Compression is off, as by
// default. The long-polling that comes before an upgrade is left out, as the page on scaling suggests where all clients have WebSocket.
const { createServer } = require("node:http");
const { Server } = require("socket.io");

const http = createServer();
const io = new Server(http, { transports: ["websocket"], serveClient: false, perMessageDeflate: false, httpCompression: false });

io.engine.on("connection", (raw) => {
  raw.request = null;
});

io.on("connection", (socket) => {
  socket.on("subscribe", (topic, done) => {
    socket.join(topic);
    done();
  });
  socket.on("publish", (topic, payload) => io.to(topic).emit("message", payload));
});

http.listen({ host: "127.0.0.1", port: Number(process.argv[2]), backlog: 4096 });
