"""Who trains what: a worker, what it takes next, its leases, its attempts."""
