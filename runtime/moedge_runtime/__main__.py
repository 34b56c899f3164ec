"""`python -m moedge_runtime`: the same as `moedge`."""

from moedge_runtime.cli.main import main

main()
