"""Media: frames on the grid of a video, face boxes and crops."""
