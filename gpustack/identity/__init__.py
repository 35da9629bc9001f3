"""Who somebody is: passwords, keys, sessions, and what a request proves."""
