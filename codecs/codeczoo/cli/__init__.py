"""Floor 5: the command line. One module per command, imported only when that command is called."""
