"""Jobs at given times: here in the foreground, or as units for systemd, cron and Kubernetes."""
