"""The worker role: runs what is assigned to this machine and reports what it sees."""
