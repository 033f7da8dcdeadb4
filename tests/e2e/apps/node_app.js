// A node http server as node's own documentation has it, on the inherited socket, plus the drain notice in three lines.
const fs = require("fs");
const http = require("http");

const version = fs.readFileSync("VERSION", "utf8").trim();

const server = http.createServer((request, response) => {
  const body = JSON.stringify({ version });
  const headers = { "Content-Type": "application/json", "Content-Length": Buffer.byteLength(body) };
  if (fs.existsSync(process.env.ROLLWAY_DRAIN_FILE)) headers.Connection = "close";
  response.writeHead(200, headers);
  response.end(body);
});
server.listen({ fd: 3 });
process.on("SIGTERM", () => server.close(() => process.exit(0)));
