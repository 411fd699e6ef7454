"""Which budget a deployment is judged by: the command's over the manifest's over the device's."""

from agent.control import neighbours
from agent.control.parts import Parts
from agent.control.record import Record
from agent.protocol.manifest import Manifest
from compression.job import Budget


def effective(given: Budget, record: Record, manifest: Manifest, parts: Parts) -> Budget:
    """What `given` leaves open comes from the manifest, then from what is free on the device.

    The device's part is no more than what its other models leave to this one.
    """
    published = manifest.budget.over(Budget(min_agreement=manifest.min_agreement))
    asked = given.over(published)
    return asked.over(neighbours.bounded(parts.default_budget(), record, asked, parts))
