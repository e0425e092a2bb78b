"""The training loop: cycles of one student update and its critic updates, exact to resume."""
