// Bun's built-in publish/subscribe: /sub/TOPIC subscribes, what is sent on /pub/TOPIC is published. Usage: bun bun.js PORT
const server = Bun.serve({
  hostname: "127.0.0.1",
  port: Number(process.argv[2]),
  fetch(request, server) {
    const [, role, topic] = new URL(request.url).pathname.split("/");
    if (server.upgrade(request, { data: { role, topic } })) return;
    return new Response("a WebSocket is expected", { status: 400 });
  },
  websocket: {
    idleTimeout: 0,
    perMessageDeflate: false,
    backpressureLimit: 64 * 1024 * 1024,
    open(socket) {
      if (socket.data.role === "sub") socket.subscribe(socket.data.topic);
    },
    message(socket, message) {
      if (socket.data.role === "pub") server.publish(socket.data.topic, message);
      else if (socket.data.role === "echo") socket.send(message);
    },
  },
});
