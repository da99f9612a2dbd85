"""How tasks come in and verdicts go out."""
