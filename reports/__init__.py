"""Figures and pages from result files: see reports/README.md."""
