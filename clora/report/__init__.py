"""One self-contained HTML page about a run: what was asked, whether it worked, what it cost."""
