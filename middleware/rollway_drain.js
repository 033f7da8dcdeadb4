// Tells the clients of a node http server to leave before Rollway stops the instance: one file without dependencies, to be copied.
//
//   require("./rollway_drain")(server);                  an http.Server: Express' and Fastify's listen() and .server are one
//   require("./rollway_drain")(server, () => {
//     for (const socket of wss.clients) socket.close(1012, "service restart");   what only this app can do, called once
//   });
//
// Once the file named by ROLLWAY_DRAIN_FILE is there, answers carry `Connection: close`. Without that variable nothing is done.
const fs = require("fs");

module.exports = function drainNotice(server, onNotice = () => {}) {
  const file = process.env.ROLLWAY_DRAIN_FILE;
  if (!file) return;
  let draining = false;
  const timer = setInterval(() => {
    const before = draining;
    draining = fs.existsSync(file);
    if (draining && !before) onNotice();
  }, 100);
  timer.unref();
  server.prependListener("request", (_request, response) => {
    if (draining) response.setHeader("Connection", "close");
  });
};
