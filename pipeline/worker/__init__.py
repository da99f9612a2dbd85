"""The worker: from a message of Kafka to a stored and published verdict."""
