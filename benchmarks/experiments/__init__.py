"""What was tried, and how the rows of the results table were made."""
