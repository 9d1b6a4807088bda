"""The report: one HTML file that shows what a run is worth, and from what it was made."""

from .page import ReportSummary, write_report
from .sources import ReportError

__all__ = ["ReportError", "ReportSummary", "write_report"]
