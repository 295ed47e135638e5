"""Labelled images, sampling of training tiles, augmentation."""
