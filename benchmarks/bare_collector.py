"""The least that a collector can be: aiohttp in front, aiokafka with acks=all behind, and nothing else.

    python benchmarks/bare_collector.py HOST:PORT BROKERS

No authentication, no key, no header, no metric, no limit but aiohttp's own, no plan for Kafka's absence.
"""

import sys

from aiohttp import web
from aiokafka import AIOKafkaProducer


async def webhook(request: web.Request) -> web.Response:
    body = await request.read()
    await request.app["producer"].send_and_wait(f"bare.webhooks.{request.match_info['provider']}", body)
    return web.json_response({"message": "stored"}, status=202)


async def connect(app: web.Application) -> None:
    app["producer"] = AIOKafkaProducer(bootstrap_servers=sys.argv[2], acks="all")
    await app["producer"].start()


def main() -> None:
    app = web.Application()
    app.router.add_post("/webhooks/{provider}", webhook)
    app.on_startup.append(connect)
    host, _, port = sys.argv[1].rpartition(":")
    web.run_app(app, host=host, port=int(port), access_log=None, print=None)


if __name__ == "__main__":
    main()
