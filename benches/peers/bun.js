// Bun's built-in publish/subscribe: /sub/TOPIC,TOPIC subscribes, what is sent on /pub/TOPIC is published; on /pub each message
// begins with its topic and a blank. Usage: bun bun.js PORT [CERT KEY]
//
// From Bun's documentation of WebSockets: its native publish, which is uWebSockets', and no compression, as by default. backpressureLimit is what a
// subscriber may be behind; it is raised from 16 MiB so that nobody loses any, as elsewhere.
//
// With COMPRESS in the environment it compresses: `shared` is one compressor for all connections, which keeps nothing from message to message, `dedicated` one for
// each, of 256 KB (perMessageDeflate.compress, and the last argument of publish, of the same documentation).
const [, , port, cert, key] = process.argv;
const compress = process.env.COMPRESS ?? "";
const server = Bun.serve({
  hostname: "127.0.0.1",
  port: Number(port),
  tls: cert && { cert: Bun.file(cert), key: Bun.file(key) },
  fetch(request, server) {
    const [, role, topic] = new URL(request.url).pathname.split("/");
    if (server.upgrade(request, { data: { role, topic } })) return;
    return new Response("a WebSocket is expected", { status: 400 });
  },
  websocket: {
    idleTimeout: 0,
    perMessageDeflate: compress !== "" && { compress, decompress: "shared" },
    backpressureLimit: 64 * 1024 * 1024,
    open(socket) {
      if (socket.data.role === "sub") for (const topic of socket.data.topic.split(",")) socket.subscribe(topic);
    },
    message(socket, message) {
      const { role, topic } = socket.data;
      if (role === "pub" && topic) server.publish(topic, message, compress !== "");
      else if (role === "pub") {
        const blank = message.indexOf(" ");
        server.publish(message.slice(0, blank), message.slice(blank + 1), compress !== "");
      } else if (role === "echo") socket.send(message);
    },
  },
});
