"""A run: its folder, its stages in their order, and the files that it writes and reads back."""
