"""The search itself: its space, trials, phases and what it leaves in the sweep's folder."""
