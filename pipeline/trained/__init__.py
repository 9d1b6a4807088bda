"""Trained models in use: shipped, fetched, exported, or as a program."""

from .model_file import load_trained

__all__ = ["load_trained"]
