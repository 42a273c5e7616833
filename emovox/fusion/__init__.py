"""Sound and face together over time (Schoneveld, Othmani and Abdelkawy, 2021)."""
