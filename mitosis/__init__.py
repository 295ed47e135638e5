"""Finds mitotic figures in H&E images: slide -> windows -> candidates -> detections -> files. Imports no torch."""

__version__ = "0.2.0"
