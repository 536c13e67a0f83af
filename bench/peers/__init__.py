"""The programs that are compared, each measured in a process of its own."""
