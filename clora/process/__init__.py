"""The process itself: signals, threads, and the terminal that it writes to."""
