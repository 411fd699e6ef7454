"""The demo's course: deploy, follow, deploy the original beside it, ask both, print the table."""

import asyncio
import threading
from dataclasses import dataclass, field

from agent import config
from agent.errors import Refused, Unavailable
from agent.link.mqtt import Link
from agent.protocol import trust
from agent.protocol.commands import Deploy, Strategy
from agent.protocol.events import Event
from agent.protocol.topics import Topics
from deploy.demo import device, figures, findings, report, story, traffic
from deploy.demo.operator import Operator
from deploy.demo.plan import Plan
from deploy.demo.screen import Screen
from deploy.demo.stage import Stage
from deploy.demo.watch import Watch

ONLINE_S = 40.0
DEPLOY_S = 900.0
SERVING_S = 20.0
TELEMETRY_S = 15 * device.TELEMETRY_INTERVAL_S
COMPRESS_MINUTES = 2.0
KEEP_HINT = "Ctrl-C stops everything and removes its files"


async def perform(stage: Stage, plan: Plan, screen: Screen, *, keep: bool) -> None:
    """Deploy the model twice, ask both about every sample, print the table.

    Raises:
        Refused: the device refused, or no variant was admitted where one has to be.
        Unavailable: a child ended, or something took too long.
    """
    topics = Topics()
    settings = config.Broker(host="127.0.0.1", port=stage.broker_port)
    async with Link(settings, client_id="demo-operator", clean=True) as link:
        await link.connected(ONLINE_S)
        watch = Watch(link, topics, device.DEVICE, stage.check)
        await watch.begin()
        url = await watch.online(seconds=ONLINE_S)
        screen.say("agent", f"device {device.DEVICE!r} is online, serves at {url}")
        operator = Operator(link, topics, trust.signer(stage.folders.private_key.read_bytes()))
        show = Show(stage, plan, screen, watch, operator, url)
        if await show.improved():
            await show.beside()
            await show.comparison()
        stage.complete = True
        if keep:
            await _stay(stage, screen, operator, url)


async def _stay(stage: Stage, screen: Screen, operator: Operator, url: str) -> None:
    screen.heading("Running on")
    screen.say("inference", f"{url}/v2 (Open Inference Protocol)")
    screen.say("status", await operator.health_url(device.DEVICE))
    screen.say("broker", f"127.0.0.1:{stage.broker_port}, key {stage.folders.private_key}")
    screen.say("log", str(stage.folders.agent_log))
    screen.say("stop", KEEP_HINT)
    while True:
        stage.check()
        await asyncio.sleep(0.5)


@dataclass
class Show:
    """One run: what was deployed, and what was seen of it."""

    stage: Stage
    plan: Plan
    screen: Screen
    watch: Watch
    operator: Operator
    url: str
    _ended: threading.Event = field(default_factory=threading.Event)
    _pulling_since_s: float = 0.0

    async def improved(self) -> bool:
        """Deploy the model to be improved; whether a variant serves at the end.

        Raises:
            Refused: none does, and the plan says that one must.
        """
        plan = self.plan
        budget = findings.budget_text(plan.budget)
        self.screen.heading(f"{plan.name}: deploy, then improve within {budget}")
        for told in plan.told:
            self.screen.say("inputs", told)
        await self._deploy(plan.name, "improve")
        live = await self.watch.serving(plan.name, seconds=SERVING_S)
        if live.variant != "original":
            return True
        why = live.message or "nothing better was found"
        if plan.must_improve:
            raise Refused(f"cannot improve {plan.name}: the original serves: {why}")
        answers = await self._ask((plan.name,))
        p50_ms = figures.quantile([answer.latency_ms for answer in answers[plan.name]], 0.5)
        self.screen.say("original", f"it goes on serving: {why}")
        self.screen.say("latency", f"p50 {p50_ms:.2f} ms over HTTP, {len(plan.samples)} requests")
        return False

    async def beside(self) -> None:
        """Deploy the same file as it is, under another name, to compare with."""
        self.screen.heading(f"{self.plan.reference}: the same file as it is, to compare with")
        await self._deploy(self.plan.reference, "as-is")

    async def _deploy(self, name: str, strategy: Strategy) -> None:
        improve = strategy == "improve"
        sent = await self.watch.meanwhile(
            self.operator.publish(self.plan, name=name, with_inputs=improve, on_progress=self._sent)
        )
        self.screen.say("published", sent)
        seen = len(self.watch.events)
        body = Deploy(
            model=name,
            version=1,
            strategy=strategy,
            minutes=COMPRESS_MINUTES,
            observe_minutes=0,  # nobody but the demo asks, and it asks both models in the end
            **({"budget": self.plan.budget} if improve else {}),
        )
        reply = await self.watch.meanwhile(self.operator.command(device.DEVICE, body))
        self.screen.say("command", f"deploy {name}, strategy {strategy}: {reply.outcome}")
        await self.watch.until_rest(name, seen=seen, on_event=self._tell, seconds=DEPLOY_S)

    def _sent(self, file: str, done: int, whole: int) -> None:
        if done <= whole:  # index blobs come after the chunks
            self.screen.show(story.Step("publish", file, done / whole, counts=True))

    def _tell(self, event: Event) -> None:
        if event.kind == "state" and event.state == "fetching":
            self._pulling_since_s = event.at_s
        if event.kind == "state" and event.state == "starting":
            took_s = event.at_s - self._pulling_since_s
            self.screen.say("pulled", f"in {took_s:.1f} s, each chunk checked against its name")
        self.screen.show(story.tell(event))

    async def comparison(self) -> None:
        """Ask both models about every sample and print the table."""
        plan, watch = self.plan, self.watch
        names = (plan.reference, plan.name)
        self.screen.heading(f"{len(plan.samples)} samples to both over HTTP, in turn")
        answers = await self._ask(names)
        models = [await watch.serving(name, seconds=SERVING_S) for name in names]
        sent = len(plan.samples)
        await watch.until(
            lambda: findings.all_reported(watch.telemetry, models, least=sent) or None,
            what="get the telemetry of all requests",
            seconds=TELEMETRY_S,
        )
        self.screen.say("telemetry", f"{len(watch.telemetry)} batches from the device")
        made = findings.report(plan, models, answers, watch.events, watch.telemetry)
        report.show(made, on=self.screen.out)

    async def _ask(self, names: tuple[str, ...]) -> dict[str, list[traffic.Answer]]:
        for name in names:
            await self.watch.serving(name, seconds=SERVING_S)
        try:
            return await self.watch.meanwhile(
                asyncio.to_thread(
                    traffic.interleave, self.url, names, self.plan.samples, on_sample=self._sampled
                )
            )
        finally:
            self._ended.set()

    def _sampled(self, count: int) -> None:
        """Called in the thread that asks, which a cancellation cannot reach otherwise."""
        if self._ended.is_set():
            raise Unavailable("cannot go on asking: stopped")
        if count % 10 == 0:
            whole = len(self.plan.samples)
            self.screen.show(
                story.Step("asking", f"{count} of {whole}", count / whole, counts=True)
            )
