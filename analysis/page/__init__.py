"""The report of analysis.report as one HTML file."""
