"""What the API answers, by kind of resource."""
