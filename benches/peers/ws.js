// The npm package ws on Node: /sub/TOPIC,TOPIC subscribes, what is sent on /pub/TOPIC is published; on /pub each message begins
// with its topic and a blank. Usage: node ws.js PORT [CERT KEY]
//
// As its maintainer has said that one broadcasts: a publication is framed once for all, by Sender.frame, which was made public for this
// (github.com/websockets/ws/pull/1016), and sockets are corked, by the socket itself (pull/1999), until what could be read has been read, so that
// a subscriber has all of that in one write. permessage-deflate is off, as it is by default, since it costs memory and speed (its README).
// What a subscriber doesn't read is kept up to 64 MiB; beyond that it is cut off.
//
// With COMPRESS in the environment it compresses, as its README has it: with a compressor for each connection, used by what each is sent, which is not
// framed here then. Its threshold is the server's here, 128 bytes.
const fs = require("node:fs");
const http = require("node:http");
const https = require("node:https");
const { Sender, WebSocketServer } = require("ws");

const BACKLOG_MAX = 64 * 1024 * 1024;

const topics = new Map();
const [, , port, cert, key] = process.argv;
const compress = Boolean(process.env.COMPRESS);
const web = cert ? https.createServer({ cert: fs.readFileSync(cert), key: fs.readFileSync(key) }) : http.createServer();
const server = new WebSocketServer({ server: web, perMessageDeflate: compress && { threshold: 128 } });
web.listen({ host: "127.0.0.1", port: Number(port), backlog: 4096 });

let corked = [];
const uncork = () => {
  const streams = corked;
  corked = [];
  for (const stream of streams) stream.uncork();
};

const publish = (topic, data, binary) => {
  if (compress) {
    for (const subscriber of topics.get(topic) ?? []) {
      if (subscriber.bufferedAmount > BACKLOG_MAX) subscriber.terminate();
      else if (subscriber.readyState === 1) subscriber.send(data, { binary });
    }
    return;
  }
  const options = { fin: true, rsv1: false, opcode: binary ? 2 : 1, mask: false, readOnly: true };
  const frame = Buffer.concat(Sender.frame(data, options));
  for (const subscriber of topics.get(topic) ?? []) {
    const stream = subscriber._socket;
    if (subscriber.readyState !== 1) continue;
    if (stream.writableLength > BACKLOG_MAX) {
      subscriber.terminate();
      continue;
    }
    if (stream.writableCorked === 0) {
      // Behind the last of what this turn of the loop reads.
      if (corked.length === 0) setImmediate(uncork);
      stream.cork();
      corked.push(stream);
    }
    stream.write(frame);
  }
};

server.on("connection", (socket, request) => {
  const [, role, topic] = request.url.split("/");
  socket.on("error", () => {});
  if (role === "sub") {
    const names = topic.split(",");
    for (const name of names) topics.set(name, (topics.get(name) ?? new Set()).add(socket));
    socket.on("close", () => names.forEach((name) => topics.get(name).delete(socket)));
  } else if (role === "pub" && topic) {
    socket.on("message", (data, binary) => publish(topic, data, binary));
  } else if (role === "pub") {
    socket.on("message", (data, binary) => {
      const blank = data.indexOf(" ");
      publish(data.toString("latin1", 0, blank), data.subarray(blank + 1), binary);
    });
  } else if (role === "echo") {
    socket.on("message", (data, binary) => socket.send(data, { binary }));
  }
});
