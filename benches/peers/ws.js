// The npm package ws on Node: /sub/TOPIC subscribes, what is sent on /pub/TOPIC is published. Usage: node ws.js PORT
const { WebSocketServer } = require("ws");

const topics = new Map();
const server = new WebSocketServer({ host: "127.0.0.1", port: Number(process.argv[2]), backlog: 4096, perMessageDeflate: false });

server.on("connection", (socket, request) => {
  const [, role, topic] = request.url.split("/");
  socket.on("error", () => {});
  if (role === "sub") {
    if (!topics.has(topic)) topics.set(topic, new Set());
    topics.get(topic).add(socket);
    socket.on("close", () => topics.get(topic).delete(socket));
  } else if (role === "pub") {
    socket.on("message", (data, binary) => {
      for (const subscriber of topics.get(topic) ?? []) subscriber.send(data, { binary });
    });
  } else if (role === "echo") {
    socket.on("message", (data, binary) => socket.send(data, { binary }));
  }
});
