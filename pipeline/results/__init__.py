"""Where verdicts go: JSON lines, HTML report."""
