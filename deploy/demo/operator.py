"""The operator's part in the demo, by the same functions that `trimtab-fleet` calls."""

from securesystemslib.signer import Signer

from agent.errors import Refused, TrimtabError, Unavailable
from agent.link.mqtt import Link
from agent.protocol.commands import Body, Describe
from agent.protocol.events import Reply
from agent.protocol.topics import Topics
from deploy.demo.plan import Plan
from deploy.demo.story import megabytes
from deploy.fleet import Fleet
from deploy.publish import Offer, OnProgress, publish

REPLY_S = 20.0
_ERRORS: dict[str, type[TrimtabError]] = {"refused": Refused, "failed": Unavailable}
VERSION = 1


class Operator:
    """Publishes and commands through one link, signing with one key."""

    def __init__(self, link: Link, topics: Topics, signer: Signer) -> None:
        """Use a connected link."""
        self._link, self._topics, self._signer = link, topics, signer
        self._fleet = Fleet(link, topics, signer)

    async def publish(
        self, plan: Plan, *, name: str, with_inputs: bool, on_progress: OnProgress
    ) -> str:
        """Publish the plan's model under `name`; return in words what was sent.

        Raises:
            BadInput: the model or its inputs cannot be published.
            Unavailable: the broker refuses.
        """
        offer = Offer(
            model=plan.model,
            name=name,
            version=VERSION,
            calibration=plan.calibration if with_inputs else None,
            evaluation=plan.evaluation if with_inputs else None,
            outputs=plan.outputs,
            licence=plan.licence,
        )
        manifest = await publish(
            offer, link=self._link, topics=self._topics, by=self._signer, on_progress=on_progress
        )
        files = manifest.files
        refs = [ref for ref in (files.model, files.calibration, files.evaluation) if ref]
        whole = megabytes(sum(ref.size_bytes for ref in refs))
        count = f"{len(refs)} file" + ("s" if len(refs) > 1 else "")
        return f"{name}@{manifest.version}: {count}, {whole}, as retained chunks"

    async def command(self, device: str, body: Body) -> Reply:
        """Send a signed command; return the device's answer.

        Raises:
            Refused: the device refused it.
            Unavailable: no answer in 20 s, or the device failed.
        """
        (reply,) = await self._fleet.ask(f"device/{device}", body, timeout_s=REPLY_S)
        if reply.outcome in _ERRORS:
            raise _ERRORS[reply.outcome](f"cannot {body.kind}: {reply.outcome}: {reply.message}")
        return reply

    async def health_url(self, device: str) -> str:
        """Where the device's status page is."""
        reply = await self.command(device, Describe())
        return str(reply.result.get("health_url", "not told"))
