"""Which Ray cluster there is, or that there is none, and what machine or cluster can give."""
