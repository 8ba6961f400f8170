"""`python -m proxy.cli`: the command where no script was installed."""

from proxy.cli import main

main()
