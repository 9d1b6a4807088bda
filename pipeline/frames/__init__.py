"""Colour frames: images, videos, and folders of them."""
