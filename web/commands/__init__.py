"""Commands of the service: `unmask serve`, `unmask keys`."""
