"""Three plugins in one, chosen by `mode` in the settings: `redact`, `sample` and `check`."""

import functools
import json

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.lifecycle import Manifest
from wit_world.imports import batch, host
from wit_world.imports.types import Level, Places, Signal

settings = {}
patterns = 0


def guarded(export):
    """An exception that leaves an export would stop the instance, and its text would be lost."""

    @functools.wraps(export)
    def call(*arguments):
        try:
            return export(*arguments)
        except Err:
            raise
        except BaseException as error:
            trace = error.__traceback__
            while trace.tb_next:
                trace = trace.tb_next
            raise Err(f"{type(error).__name__}: {error} (line {trace.tb_lineno})")

    return call


class Lifecycle(exports.Lifecycle):
    def describe(self):
        reads = ["body", "severity", "trace-id"]
        return Manifest("example", "0.1.0", [Signal.LOGS], reads, ["body", "drop"], [], 0)

    @guarded
    def configure(self, text):
        global settings, patterns
        settings = json.loads(text)
        if settings["mode"] == "redact":
            patterns = host.compile([settings["pattern"]])


def redact():
    """The collector searches: no string moves."""
    host.count("redacted", batch.search_and_replace(patterns, Places.BODY, [settings["by"]]))


def sample():
    """Errors stay, and of the other traces the part `keep`."""
    below = 1 - settings["keep"]
    rows = enumerate(zip(batch.severities(), batch.trace_fractions()))
    dropped = [row for row, (severity, fraction) in rows if severity < 17 and fraction < below]
    batch.drop(dropped)
    host.count("sampled-out", len(dropped))


def check():
    """One that fails on some records: the collector finds out which, and lets the others pass."""
    if any("UNREADABLE" in body for body in batch.texts(Places.BODY)):
        raise Err("a record is marked as unreadable")
    host.count("checked", batch.rows(Level.ITEM))


def spin():
    """For the tests of limits: a call that never ends on records that say so."""
    while any("ENDLESS" in body for body in batch.texts(Places.BODY)):
        while True:
            pass


class Processor(exports.Processor):
    @guarded
    def process(self):
        {"redact": redact, "sample": sample, "check": check, "spin": spin}[settings["mode"]]()
