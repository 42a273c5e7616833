"""A dataset as a product: what is checked, compared and published."""
