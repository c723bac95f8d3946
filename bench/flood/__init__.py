"""What one key that sends as fast as it can does to the store and to other tenants."""
