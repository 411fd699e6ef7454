"""Changes what the server has loaded, and undoes a load that nobody waits for any more."""

import asyncio
import contextlib
import logging

from agent.errors import BadInput, Corrupt, Refused, TrimtabError, Unavailable
from agent.host.client import NotNow
from agent.host.keeping import Keeper
from agent.host.life import Life
from agent.host.wanted import Wanted
from agent.protocol.private import LoadReply, LoadRequest

_LOG = logging.getLogger(__name__)


class Loads:
    """Loads and unloads, one at a time; `wanted` is what a server that starts again loads."""

    def __init__(self, keeper: Keeper, wanted: Wanted) -> None:
        """Ask the server that `keeper` keeps alive."""
        self._keeper, self._wanted = keeper, wanted
        self._changing = asyncio.Lock()
        self._mending: set[asyncio.Task[None]] = set()

    @property
    def mending(self) -> bool:
        """Whether a load is being undone."""
        return bool(self._mending)

    async def load(self, request: LoadRequest) -> LoadReply:
        """Load a variant and switch to it; from then on it is loaded again after each restart.

        `request.index` is given here anew. While the server is down it waits.

        Raises:
            BadInput, Corrupt: the file is not what it should be.
            Refused: it answers its probe wrongly, or the server died of it.
            Unavailable: the server does not answer, or died for another reason.
        """
        async with self._changing:
            life = await self._keeper.living()
            asked = self._wanted.ask(request)
            try:
                reply = await life.client.load(asked)
            except asyncio.CancelledError:
                self._mend(asked.name)
                raise
            except (NotNow, BadInput, Corrupt, Refused):
                await self._face_loss(asked.name, life)
                raise
            except Unavailable as error:
                verdict = await life.verdict_soon()
                if verdict is None:
                    self._mend(asked.name)
                elif verdict.guilty and asked in verdict.suspects:
                    raise Refused(f"cannot load {asked.name}: the server: {verdict}") from error
                raise
            self._wanted.keep(asked)
        return reply

    async def unload(self, name: str) -> None:
        """Take a model out of service for good.

        Raises:
            BadInput: it is not live.
            Unavailable: the server does not answer; it will not load it again in any case.
        """
        if self._wanted.drop(name) is None:
            raise BadInput(f"cannot unload {name}: it is not live")
        if self._keeper.up.is_set() and self._keeper.life is not None:
            await self._keeper.life.client.unload(name)

    async def stop(self) -> None:
        """Undo nothing any more."""
        for task in (mending := set(self._mending)):
            task.cancel()
        if mending:
            await asyncio.wait(mending)

    async def _face_loss(self, name: str, life: Life) -> None:
        """Where something was to take another's place and neither could be loaded, the other does
        not serve any more, and is not told as if it did. Who asked for the load restores."""
        with contextlib.suppress(Unavailable):  # it has died: the next one loads what is wanted
            if self._wanted.get(name) is not None and not await life.client.serves(name):
                self._wanted.drop(name)
                _LOG.error("%s does not serve any more: it could not be put back", name)

    def _mend(self, name: str) -> None:
        """Undo a load that nobody waits for any more: the server may go on with it and switch."""
        task = asyncio.create_task(self._put_back(name), name=f"mending {name}")
        self._mending.add(task)
        task.add_done_callback(self._mending.discard)

    async def _put_back(self, name: str) -> None:
        async with self._changing:
            wanted = self._wanted.get(name)
            try:
                life = await self._keeper.living()  # a new process has loaded just what is wanted
                if wanted is None:
                    await life.client.unload(name)
                    return
                try:
                    await life.client.load(wanted)
                except TrimtabError:
                    await self._face_loss(name, life)
                    raise
            except TrimtabError as error:
                nothing = wanted is None and isinstance(error, BadInput)
                _LOG.log(
                    logging.INFO if nothing else logging.WARNING,
                    "cannot put %s back: %s",
                    name,
                    error,
                )
