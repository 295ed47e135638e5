"""Trains both networks and exports the model bundle. The only wing that imports torch."""
