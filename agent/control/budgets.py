"""Which budget a deployment is judged by: the command's over the manifest's over the device's."""

from agent.control.parts import Parts
from agent.protocol.manifest import Manifest
from compression.job import Budget


def effective(given: Budget, manifest: Manifest, parts: Parts) -> Budget:
    """What `given` leaves open comes from the manifest, then from what is free on the device."""
    published = manifest.budget.over(Budget(min_agreement=manifest.min_agreement))
    return given.over(published).over(parts.default_budget())
