"""Brokers for the tests of the link: rumqttd always, mosquitto where it is installed."""

from collections.abc import Iterator

import pytest

from tests.simulators.broker import (
    RunningBroker,
    iotcore_broker,
    mosquitto_broker,
    needs_mosquitto,
)


@pytest.fixture
def broker() -> Iterator[RunningBroker]:
    with iotcore_broker() as running:
        yield running


@pytest.fixture(params=["iotcore", pytest.param("mosquitto", marks=needs_mosquitto)])
def each_broker(request: pytest.FixtureRequest) -> Iterator[RunningBroker]:
    with (iotcore_broker if request.param == "iotcore" else mosquitto_broker)() as running:
        yield running
