"""What two peers have agreed. Time is an argument; nothing here does I/O."""
