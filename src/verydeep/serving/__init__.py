"""Networks behind HTTP: one process, a bounded queue, batches of requests."""
