"""What is decided, as pure functions of a snapshot and the time: where instances run, how many, who is alive."""
