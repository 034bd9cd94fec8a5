// The npm package ws on Node: /sub/TOPIC,TOPIC subscribes, what is sent on /pub/TOPIC is published; on /pub each message begins
// with its topic and a blank. Usage: node ws.js PORT
const { WebSocketServer } = require("ws");

const topics = new Map();
const server = new WebSocketServer({ host: "127.0.0.1", port: Number(process.argv[2]), backlog: 4096, perMessageDeflate: false });

const publish = (topic, data, binary) => {
  for (const subscriber of topics.get(topic) ?? []) subscriber.send(data, { binary });
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
