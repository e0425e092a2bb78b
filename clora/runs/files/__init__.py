"""The files that a run writes and reads back: each has a checksum, typed fields, and a sentence for its damage."""
