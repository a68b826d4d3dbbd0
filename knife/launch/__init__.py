"""Ray at work: sessions, worker groups and jobs."""
