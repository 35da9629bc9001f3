"""Tells a failed test when it fails, for runs that may be cut short before pytest comes to its list of failures."""

from __future__ import annotations

import pytest


class AtOnce:
    """Prints each failure in full as it happens."""

    def __init__(self, reporter: pytest.TerminalReporter) -> None:
        self._reporter = reporter

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._reporter.ensure_newline()
            self._reporter.section(
                f"{report.when} of {report.nodeid} failed after {report.duration:.0f} s", sep="_"
            )
            self._reporter.write_line(report.longreprtext)
            for name, text in report.sections:
                self._reporter.section(name, sep="-")
                self._reporter.write_line(text[-4000:])
