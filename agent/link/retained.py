"""Asks the broker for one retained message."""

import asyncio

from agent.errors import Unavailable
from agent.link.messages import Message
from agent.link.mqtt import Link


async def retained(link: Link, topic: str, *, timeout_s: float) -> bytes:
    """Return what the broker retains under `topic`.

    Raises:
        Unavailable: not connected, denied, or nothing is there (nothing came in `timeout_s`).
    """
    arrived: asyncio.Queue[Message] = asyncio.Queue()
    await link.connected(timeout_s)
    try:
        await link.subscribe([topic], arrived.put_nowait)
        async with asyncio.timeout(timeout_s):
            while not (message := await arrived.get()).payload:
                pass  # cleared just now; perhaps it is published again
            return message.payload
    except TimeoutError:
        raise Unavailable(f"cannot find {topic} on broker {link.where}: not published") from None
    finally:
        link.unsubscribe([topic])
