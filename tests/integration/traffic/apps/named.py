"""A web server that answers its own name, on a port of its own; `/slow` takes half a second. Says its port once."""

import asyncio
import sys

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s"


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    name = sys.argv[1].encode()
    try:
        while request := await reader.readuntil(b"\r\n\r\n"):
            if request.startswith(b"GET /slow"):
                await asyncio.sleep(0.5)
            writer.write(HEAD % (len(name), name))
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def main() -> None:
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


asyncio.run(main())
