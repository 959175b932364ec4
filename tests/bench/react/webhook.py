"""Source of ansible-rulebook: takes webhooks of Alertmanager, as the collection ansible.eda does."""

import asyncio

from aiohttp import web


async def main(queue: asyncio.Queue, args: dict) -> None:
    async def take(request: web.Request) -> web.Response:
        await queue.put({"payload": await request.json()})
        return web.Response(text="taken\n")

    app = web.Application()
    app.router.add_post("/v1/alertmanager", take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, args["host"], args["port"]).start()
    await asyncio.Event().wait()
