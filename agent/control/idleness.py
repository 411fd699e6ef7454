"""Whether a device is idle, by what its owner calls so (pure)."""

from agent.config import Idle
from agent.device.idleness import Reading


def busy(reading: Reading, idle: Idle, *, wanted: bool = False) -> str:
    """Why work that can wait has to; empty where the device is idle.

    `wanted`: something that was asked for is to be measured or compressed.
    """
    if wanted:
        return "something else is to be measured"
    if reading.others_cpu_share > idle.cpu_share:
        return (
            f"others take {reading.others_cpu_share:.0%} of the processor, more than "
            f"{idle.cpu_share:.0%}"
        )
    if reading.celsius is not None and reading.celsius > idle.celsius:
        return f"it is {reading.celsius:.0f} degrees Celsius warm, more than {idle.celsius:.0f}"
    if not reading.on_mains and not _charged(reading, idle):
        charge = "" if reading.battery_percent is None else f" of {reading.battery_percent:.0f} %"
        return f"it runs on its battery{charge}"
    if idle.window is not None and not _within(idle.window, reading.minute_of_day):
        return f"it is not between {idle.window.replace('-', ' and ')}"
    return ""


def _charged(reading: Reading, idle: Idle) -> bool:
    if idle.battery_percent is None or reading.battery_percent is None:
        return False
    return reading.battery_percent >= idle.battery_percent


def _within(window: str, minute: int) -> bool:
    """Whether a minute of the day lies in `HH:MM-HH:MM`, which may go past midnight."""
    first, last = (int(at[:2]) * 60 + int(at[3:]) for at in window.split("-"))
    if first <= last:
        return first <= minute < last
    return minute >= first or minute < last
