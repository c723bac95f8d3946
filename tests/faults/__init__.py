"""The whole service while something is broken on purpose; each test names the promise it defends."""
