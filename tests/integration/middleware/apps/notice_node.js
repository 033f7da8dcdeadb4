// A node http server on the inherited socket, with WebSockets where `ws` is installed (NODE_PATH); NOTICE=off leaves the notice away.
const http = require("http");

const body = JSON.stringify({ release: process.env.ROLLWAY_RELEASE });
const server = http.createServer((_request, response) => {
  response.writeHead(200, { "Content-Type": "application/json", "Content-Length": Buffer.byteLength(body) });
  response.end(body);
});
server.keepAliveTimeout = 75_000;

const sockets = new Set();
try {
  const { WebSocketServer } = require("ws");
  new WebSocketServer({ server }).on("connection", (socket) => {
    sockets.add(socket);
    socket.on("close", () => sockets.delete(socket));
    socket.on("message", (data) => socket.send(data.toString()));
  });
} catch (error) {
  if (error.code !== "MODULE_NOT_FOUND") throw error;
}

if (process.env.NOTICE !== "off") {
  require("./rollway_drain")(server, () => {
    for (const socket of sockets) socket.close(1012, "service restart");
  });
}
server.listen({ fd: 3 });
process.on("SIGTERM", () => server.close(() => process.exit(0)));
