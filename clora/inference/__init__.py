"""A model in memory with its adapters and encoded conditions, and the pictures that it makes."""
