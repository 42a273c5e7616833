"""A dataset to look at: one page for a browser, and the figures and tables of the paper."""
