"""A comparison as a page to read: one HTML file that works offline."""

from dbnorm_vdb.report.page import check_report, write_report

__all__ = ["check_report", "write_report"]
