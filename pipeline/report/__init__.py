"""The report: one HTML file that shows what a run is worth, and from what it was made."""

from .material import ReportError
from .page import ReportSummary, write_report

__all__ = ["ReportError", "ReportSummary", "write_report"]
