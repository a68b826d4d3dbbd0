"""Ray at work: sessions, the executor of stages with its worker groups, and jobs."""
