"""One file a command: its first line is its summary, its docstring its usage, ``run(argv, env)`` what it does."""
