"""The handler on an event loop of your own, without the daemon, in the clear or with TLS.

`python standalone.py` serves http://localhost:8080, `python standalone.py certificate.pem key.pem` https.
"""

import asyncio
import ssl
import sys

from hello import HttpRequestHandler


async def main(*certificate_and_key):
    sslcontext = None
    if certificate_and_key:
        sslcontext = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        sslcontext.load_cert_chain(*certificate_and_key)

    loop = asyncio.get_running_loop()
    server = await loop.create_server(  # debug: tracebacks in error pages, for your eyes only
        lambda: HttpRequestHandler(debug=True, keep_alive=75), "0.0.0.0", 8080, ssl=sslcontext
    )
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
