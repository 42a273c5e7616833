"""Corpora: the tracks of a folder of media, in any of the known layouts, and their splits."""
