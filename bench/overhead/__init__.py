"""What the service adds to the pipeline's own time, beside a naive service in the same run."""
