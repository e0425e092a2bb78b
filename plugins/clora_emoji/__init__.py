"""The embedded world: emoji pictures by several artists, edits with a known truth, and a small edit model."""
