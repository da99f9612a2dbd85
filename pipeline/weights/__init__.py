"""The life of weights in a service: the registry, the announcement, who holds them, how new ones are taken in."""
