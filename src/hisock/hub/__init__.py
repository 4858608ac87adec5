"""Who is here and where a message goes; pure."""
