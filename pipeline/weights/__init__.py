"""Weights of a running service: registry, announcement, leases, and the change to new ones."""
